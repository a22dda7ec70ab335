"""The documents' Python: blocks marked ```` ```python run ```` run, those of one page in order and in one namespace."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from docs import pictures
from matplotlib.image import imread

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SLOW = {"tutorial.md"}
"""Pages whose code trains models."""
IMAGE = re.compile(r"(?:!\[[^\]]*\]\(|<img src=\")([^)\"]+\.png)")
BLOCK = re.compile(r"^```python(?P<run> run)?\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, *, run: bool) -> list[str]:
    """The page's Python blocks, those marked to run or all, each behind as many empty lines as lines stand before it.

    So a traceback tells the page's own line.
    """
    text = page.read_text("utf-8")
    found = [match for match in BLOCK.finditer(text) if match["run"] or not run]
    return ["\n" * text.count("\n", 0, match.start("code")) + match["code"] for match in found]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_python(page: Path) -> None:
    for code in blocks(page, run=False):
        compile(code, str(page), "exec")


RUN = [
    pytest.param(page, marks=pytest.mark.slow if page.name in SLOW else (), id=page.name)
    for page in PAGES
    if blocks(page, run=True)
]


@pytest.mark.parametrize("page", RUN)
def test_what_a_page_says_of_its_examples_holds(page: Path) -> None:
    names: dict[str, object] = {"__name__": "__main__"}
    for code in blocks(page, run=True):
        exec(compile(code, str(page), "exec"), names)


def test_the_readme_and_the_page_on_derivatives_have_blocks_that_run() -> None:
    assert blocks(ROOT / "README.md", run=True)
    assert len(blocks(ROOT / "docs" / "derivatives.md", run=True)) > 10


def test_every_picture_that_a_page_shows_is_there_and_of_modest_size() -> None:
    shown = {(page.parent / path).resolve() for page in PAGES for path in IMAGE.findall(page.read_text("utf-8"))}
    assert shown
    assert [path for path in shown if not path.is_file() or path.stat().st_size > 120_000] == []
    kept = {path for folder in ("images", "screenshots") for path in (ROOT / "docs" / folder).resolve().iterdir()}
    assert shown == kept | {ROOT.resolve() / "benchmarks" / "timesteps.png"}


def test_the_command_makes_the_pictures_that_the_pages_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [*pictures.PICTURES, *pictures.tutorial_names()]
    assert {path.stem for path in (ROOT / "docs" / "images").iterdir()} >= set(names)
    pictures.main(["pair", "--out", str(tmp_path)])
    assert str(tmp_path / "pair.png") in capsys.readouterr().out
    made, kept = (imread(folder / "pair.png") for folder in (tmp_path, ROOT / "docs" / "images"))
    assert made.shape[:2] == kept.shape[:2] == (400, 800)
