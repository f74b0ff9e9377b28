"""Fetch the JavaScript libraries of the console from npm, and write them into the package.

`make vendor` runs this. The libraries are used as published, apart from two changes: imports by name become relative
ones, because browsers know no package names, and links to source maps are removed.
"""

from __future__ import annotations

import hashlib
import io
import re
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parents[1] / "src" / "jobcloud" / "server" / "console" / "files" / "vendor"


class Source(NamedTuple):
    """A file of a package. `sha256` is that of the package's archive; `export` is added to a file that is no module."""

    package: str
    sha256: str
    path: str
    name: str
    export: str = ""


_PREACT = ("preact@11.2.0", "3c4456766bd32b6b534d52bf4e9c2a29b33e7eedf6e96ed479300ba1a7888ebf")
_HTM = ("htm@3.1.1", "2425b9bee11409177bcabc7f32e319926fc6690c1701c0b257c88bdff2d5ba90")
_UPLOT = ("uplot@1.6.32", "4b8a8191e425658e3ea8c8c1314b0fc679c861ee3a1af2b20c7b16ba50b5133d")
SOURCES = (
    Source(*_PREACT, "dist/preact.mjs", "preact.js"),
    Source(*_PREACT, "hooks/dist/hooks.mjs", "hooks.js"),
    Source(*_PREACT, "LICENSE", "preact.LICENSE.txt"),
    Source(*_HTM, "dist/htm.module.js", "htm.js"),
    Source(*_HTM, "LICENSE", "htm.LICENSE.txt"),
    Source(*_UPLOT, "dist/uPlot.iife.min.js", "uplot.js", "export default uPlot;\n"),
    Source(*_UPLOT, "dist/uPlot.min.css", "uplot.css"),
    Source(*_UPLOT, "LICENSE", "uplot.LICENSE.txt"),
)


def archive(package: str, sha256: str) -> bytes:
    """The archive of a package. Raises ValueError if it is not the known one."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", "--silent", package], cwd=folder, check=True, capture_output=True)
        (path,) = Path(folder).iterdir()
        content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ValueError(f"{package} has the checksum {found}, not {sha256}")
    return content


def adapted(text: str, export: str) -> str:
    """The text of a module for browsers."""
    text = re.sub(r'from\s*"preact"', 'from"./preact.js"', text)
    text = re.sub(r"\n//# sourceMappingURL=.*", "", text)
    return text.rstrip("\n") + "\n" + export


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    contents = {source.package: archive(source.package, source.sha256) for source in SOURCES}
    for source in SOURCES:
        with tarfile.open(fileobj=io.BytesIO(contents[source.package])) as tar:
            member = tar.extractfile(f"package/{source.path}")
            assert member is not None, source.path
            text = member.read().decode()
        is_module = source.name.endswith(".js")
        (FOLDER / source.name).write_text(adapted(text, source.export) if is_module else text)


if __name__ == "__main__":
    main()
