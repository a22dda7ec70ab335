"""A server of the demo's models on a thread, and a watched page of a real browser: for tests and screenshots."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tapehead.demo import IMPORTS, models_folder
from tapehead.server.app import create_app
from tapehead.server.hiring import thread_fleet
from tapehead.server.run import Server, listen, uvicorn_config
from tapehead.server.settings import Settings

BROWSER = shutil.which(os.environ.get("TAPEHEAD_TEST_BROWSER", "chromium"))
PATIENCE_S = 240


@contextmanager
def served(**settings: Any) -> Iterator[str]:
    """A server of the demo's models on a thread; gives its address."""
    given = Settings(models_dir=str(models_folder()), imports=IMPORTS, preload=False, **settings)
    fleet = thread_fleet(given, {})
    with listen("127.0.0.1", 0) as listener:
        server = Server(uvicorn_config(create_app(given, fleet), given), fleet, 5.0)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.told = 1
            thread.join(30)


@contextmanager
def browsing() -> Iterator[Any]:
    """Chromium, as it is installed here."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


class Page:
    """A page of the browser, with what its console said and whom it asked."""

    def __init__(self, page: Any) -> None:
        self.page, self.said, self.asked = page, list[str](), list[str]()
        page.set_default_timeout(1000 * PATIENCE_S)
        page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.said.append(f"thrown: {error}"))
        page.on("request", lambda request: self.asked.append(request.url))

    def open(self, address: str, pictures: int = 1) -> Page:
        self.page.goto(address)
        self.drawn(pictures)
        return self

    def drawn(self, pictures: int = 1) -> None:
        """Waits until so many pictures are there and nothing is under way."""
        self.until(
            """n => {
                const [all, drawn] = [".plot", ".js-plotly-plot"].map((one) => document.querySelectorAll(one).length);
                return drawn >= n && drawn === all && !document.body.classList.contains("busy");
            }""",
            pictures,
        )

    def until(self, script: str, *arguments: Any) -> None:
        """Waits until a function in the page gives true. Playwright's own way needs eval, which the page forbids."""
        ends = time.monotonic() + PATIENCE_S
        while not self.page.evaluate(script, *arguments):
            assert time.monotonic() < ends, f"in vain: {script}"
            time.sleep(0.05)

    def holds(self, selector: str, words: str) -> None:
        """Waits until an element's text holds some words."""
        self.until("([one, words]) => document.querySelector(one)?.textContent.includes(words)", [selector, words])

    def ask(self, pictures: int = 1) -> None:
        """Asks, and waits for the answer."""
        self.run("() => document.querySelectorAll('.result').forEach((one) => { one.seen = true; })")
        self.page.click("#ask")
        self.until("() => [...document.querySelectorAll('.result')].some((one) => !one.seen)")
        self.drawn(pictures)

    def text(self, selector: str) -> str:
        return str(self.page.text_content(selector))

    def data(self, nth: int = 0) -> list[dict[str, Any]]:
        """What Plotly was given to draw."""
        script = "n => JSON.stringify(document.querySelectorAll('.plot')[n].data)"
        return json.loads(self.page.evaluate(script, nth))  # type: ignore[no-any-return]

    def csv(self, nth: int = 0) -> np.ndarray:
        """The numbers of a picture as its file holds them."""
        with self.page.expect_download() as download:
            self.page.locator("figure").nth(nth).get_by_role("button", name="CSV").click()
        rows = [line.split(",") for line in Path(download.value.path()).read_text("utf-8").splitlines()]
        return np.array([[float(cell) for cell in row[1:]] for row in rows[1:]])

    def run(self, script: str, *arguments: Any) -> Any:
        """What a function gives in the page."""
        return self.page.evaluate(script, list(arguments))
