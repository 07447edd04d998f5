#!/usr/bin/env python3
"""Takes a picture of the top of a report, from the verdict to the training curves, in Debian's chromium.

bertlora demo --out runs/demo
bertlora report runs/demo
python docs/make_screenshot.py runs/demo/report.html docs/images/report.png
"""

import sys
from pathlib import Path

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


def take(page: Path, picture: Path) -> None:
    """Writes the picture, as a PNG 1,200 pixels wide."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        shown = browser.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme="light")
        shown.goto(page.absolute().as_uri())
        height = shown.evaluate("document.getElementById('training').getBoundingClientRect().bottom")
        shown.screenshot(path=str(picture), full_page=True, clip={"x": 0, "y": 0, "width": WIDTH, "height": height})
        browser.close()


if __name__ == "__main__":
    take(Path(sys.argv[1]), Path(sys.argv[2]))
