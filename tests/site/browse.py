"""Open pages of the built site in Chromium: ``python browse.py SITE PATH …``, in the folder of a generated app.

Prints as JSON what was asked of other hosts, the pages that are wider than a phone, and what a search finds.
"""

from __future__ import annotations

import json
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

from playwright.sync_api import Request, sync_playwright

from tests.programs import PROGRAMS


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Write nothing between the lines of the test."""


def main(site: str, *paths: str) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    home, elsewhere, wide = f"http://127.0.0.1:{server.server_port}/", set[str](), []

    def note(request: Request) -> None:
        if not request.url.startswith((home, "data:", "blob:")):
            elsewhere.add(request.url)

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PROGRAMS["browser"].path(), args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 390, "height": 844})
        context.on("request", note)
        page = context.new_page()
        for path in paths:
            page.goto(home + path, wait_until="networkidle")
            if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
                wide.append(path)
        page.set_viewport_size({"width": 1280, "height": 800})
        page.get_by_role("textbox", name="Search").press_sequentially("TRUSTED_PROXY_HOPS")
        page.wait_for_selector(".md-search-result__link")
        found = page.locator(".md-search-result__link").evaluate_all("links => links.map(link => link.pathname)")
        browser.close()
    print(
        json.dumps({"elsewhere": sorted(elsewhere), "wide": wide, "found": [url.removeprefix(home) for url in found]})
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
