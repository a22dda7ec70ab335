"""The pictures of docs/page.md, taken anew: `python tests/screenshots.py` (needs Chromium and playwright)."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL import Image

from browsing import Page, browsing, served

FOLDER = Path(__file__).parents[1] / "docs" / "screenshots"
ONE = "#model=sunspots&operation=jacobian&of=lstm.h[-1]&wrt=inputs&input=example"
TWO = f"{ONE}&with&{ONE.replace('lstm.h[-1]', 'lstm.h[10]').lstrip('#')}"

# file: (fragment, pictures in it, width, height, colour scheme)
SHOTS: dict[str, tuple[str, int, int, int, str]] = {
    "page.png": (ONE, 2, 1280, 1060, "light"),
    "page_pair.png": (TWO, 4, 1600, 1180, "dark"),
    "page_phone.png": (ONE, 2, 390, 844, "light"),
}


def main() -> None:
    """Takes every picture, and says which."""
    with served() as url, browsing() as browser:
        for name, shot in SHOTS.items():
            take(browser, url, name, *shot)
            print(FOLDER / name)


def take(browser: Any, url: str, name: str, view: str, pictures: int, width: int, height: int, colours: str) -> None:
    """One picture of one view; where the window is narrow, of its answer."""
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=colours)
    page = Page(context.new_page()).open(f"{url}/{view}", pictures)
    page.page.wait_for_timeout(500)
    if width < 860:
        page.run("() => document.querySelector('.result').scrollIntoView()")
    taken = Image.open(io.BytesIO(page.page.screenshot())).convert("RGB")
    taken.quantize(256, dither=Image.Dither.NONE).save(FOLDER / name, optimize=True)
    context.close()


if __name__ == "__main__":
    main()
