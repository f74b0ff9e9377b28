"""Take the pictures of the console in docs/pictures, from a dev cluster with the demo app.

`make pictures` runs this. It needs Debian's chromium.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

FOLDER = Path(__file__).parents[1] / "docs" / "pictures"
#: how long the demo runs before the pictures are taken, in milliseconds
_RUNS_MS = 90_000
#: how long a page has been open when its picture is taken, in milliseconds
_SETTLED_MS = 3_000


def link_of(output: subprocess.Popen[str]) -> str:
    """The sign-in link that `jobcloud dev` prints. Raises RuntimeError if it ends before."""
    assert output.stdout is not None
    for line in output.stdout:
        if found := re.search(r"http://\S+/login/link#\S+", line):
            return found[0]
    raise RuntimeError("jobcloud dev has ended")


def take(page: Page, origin: str) -> None:
    """Take all pictures."""
    FOLDER.mkdir(exist_ok=True)
    page.wait_for_timeout(_RUNS_MS)
    # A list that has been open for a while under constant changes loads once in ten seconds. A new one is up to date.
    for name, path in (("job", "jobs/sales"), ("overview", "")):
        page.goto(f"{origin}/{path}")
        page.get_by_role("heading", level=1).wait_for()
        page.wait_for_timeout(_SETTLED_MS)
        page.screenshot(path=FOLDER / f"{name}.png")


def main() -> None:
    folder = tempfile.mkdtemp()
    argv = [sys.executable, "-m", "jobcloud", "dev", "--demo", "--data", folder, "--port", "18899"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as dev, sync_playwright() as playwright:
        try:
            link = link_of(dev)
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 860}, color_scheme="light", locale="en-GB")
            page.goto(link)
            page.get_by_role("button", name="Sign in").click()
            page.get_by_role("heading", name="Overview").wait_for()
            take(page, link.partition("/login")[0])
            browser.close()
        finally:
            dev.terminate()
            dev.wait(60)
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
