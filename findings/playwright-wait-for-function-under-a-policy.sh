#!/bin/sh
# Playwright for Python 1.65.2, Chromium 156. On a page whose Content-Security-Policy has no 'unsafe-eval',
# `page.evaluate` works with any text, and `page.wait_for_function` works with an expression too, if it is true at the
# first look. If it becomes true a moment later, the same call raises "EvalError: Evaluating a string as JavaScript
# violates the following Content Security Policy directive": only the later looks are made by the page's own `eval`. A
# function in place of the expression works in both cases. So a test that waits for an expression passes on a fast
# machine, and fails on a slow one with an error about the policy of the page.
# Needs Debian's chromium. Seen on 2026-12-01 with the output below. The script fails if the behaviour changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
command -v chromium >/dev/null || { echo "apt-get install chromium"; exit 2; }
cat >ask.py <<'PYTHON'
import shutil
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from playwright.sync_api import Error, sync_playwright


class Page(BaseHTTPRequestHandler):
    def do_GET(self):
        script = self.path.endswith(".js")
        body = b"setTimeout(() => { window.late = true }, 1500)" if script else b"<script src=/late.js></script><p>page</p>"
        self.send_response(200)
        self.send_header("Content-Type", "text/javascript" if script else "text/html")
        self.send_header("Content-Security-Policy", "default-src 'none'; script-src 'self'")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Page)
threading.Thread(target=server.serve_forever, daemon=True).start()
with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
    page = browser.new_page()

    def wait(text):
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        try:
            page.wait_for_function(text, timeout=20_000)
            return "waited"
        except Error as error:
            return error.message.partition("because")[0].strip()

    page.goto(f"http://127.0.0.1:{server.server_port}/")
    print("evaluate:", page.evaluate("1 + 1"))
    print("expression, true at once:", wait("1 + 1 === 2"))
    print("expression, true later:", wait("window.late === true"))
    print("function, true later:", wait("() => window.late === true"))
    browser.close()
server.shutdown()
PYTHON
python3 -m venv venv
venv/bin/python -m pip install -q playwright==1.65.2 2>/dev/null
venv/bin/python ask.py | tee seen
cat >expected <<'END'
evaluate: 2
expression, true at once: waited
expression, true later: Page.wait_for_function: EvalError: Evaluating a string as JavaScript violates the following Content Security Policy directive
function, true later: waited
END
diff expected seen
