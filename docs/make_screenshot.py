#!/usr/bin/env python3
"""Takes a picture in Debian's chromium: of the top of a report, or of the playground of a server.

bertlora demo --out runs/demo
bertlora report runs/demo
python docs/make_screenshot.py runs/demo/report.html docs/images/report.png
bertlora serve reviews=runs/demo &
python docs/make_screenshot.py http://127.0.0.1:8080 docs/images/playground.png
"""

import sys
from pathlib import Path
from typing import Any

CHROMIUM = Path("/usr/bin/chromium")
# So that the browser asks no network for anything, and runs without a screen.
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDTH = 1200
TEXT = "Dull, lifeless and far too long; not even the brilliant cast saves it."


def take(page: str, picture: Path) -> None:
    """Writes the picture, as a PNG 1,200 pixels wide. `page` is a report or the URL of a server."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        shown = browser.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme="light")
        last = ask(shown, page) if page.startswith("http") else open_report(shown, Path(page))
        height = shown.evaluate(f"document.getElementById('{last}').getBoundingClientRect().bottom")
        shown.screenshot(path=str(picture), full_page=True, clip={"x": 0, "y": 0, "width": WIDTH, "height": height})
        browser.close()


def open_report(shown: Any, page: Path) -> str:
    """Opens a report, and returns the last section that the picture shows: the training curves."""
    shown.goto(page.absolute().as_uri())
    return "training"


def ask(shown: Any, url: str) -> str:
    """Asks the playground about a text, and returns the last section that the picture shows: the answers."""
    shown.goto(url)
    shown.locator("#base").check()
    shown.locator("#text").fill(TEXT)
    shown.locator("#predict").click()
    shown.locator(".words").wait_for()
    return "one-answers"


if __name__ == "__main__":
    take(sys.argv[1], Path(sys.argv[2]))
