"""The documents' Python: blocks marked ```` ```python run ```` run, those of one page in order and in one namespace."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
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


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, run=True)], ids=lambda page: page.name)
def test_what_a_page_says_of_its_examples_holds(page: Path) -> None:
    names: dict[str, object] = {"__name__": "__main__"}
    for code in blocks(page, run=True):
        exec(compile(code, str(page), "exec"), names)


def test_the_readme_and_the_page_on_derivatives_have_blocks_that_run() -> None:
    assert blocks(ROOT / "README.md", run=True)
    assert len(blocks(ROOT / "docs" / "derivatives.md", run=True)) > 10
