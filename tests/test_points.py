"""The grammar of points: what can be written, what it means, and what is said when it cannot be read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapehead.errors import BadParameter, UnknownPoint
from tapehead.points import Point, parse, quoted


@pytest.mark.parametrize(
    ("text", "point"),
    [
        ("lstm.h", Point("lstm.h")),
        ("lstm.h[-1]", Point("lstm.h", (-1,))),
        ("lstm.h[:, 3]", Point("lstm.h", (slice(None), 3))),
        ("lstm.h[10:20, 0:8]", Point("lstm.h", (slice(10, 20), slice(0, 8)))),
        ("lstm.h[::-2, ...]", Point("lstm.h", (slice(None, None, -2), ...))),
        ("outputs[argmax]", Point("outputs", ("argmax",))),
        (" lstm . h [ 1 ] ", Point("lstm.h", (1,))),
        ('"a.b".h', Point('"a.b".h')),
        ('"plain".h', Point("plain.h")),
        ('"say ""hi""".h', Point('"say ""hi""".h')),
        ("encoder.lstm.output.1", Point("encoder.lstm.output.1")),
        ("rnn/linear_rec/kernel", Point("rnn/linear_rec/kernel")),
        ("lstm/recurrent_kernel.forget_gate", Point("lstm/recurrent_kernel.forget_gate")),
    ],
)
def test_a_point_is_read_as_numpy_would_read_its_index(text: str, point: Point) -> None:
    assert parse(text) == point


names = st.text(min_size=1, max_size=8).map(quoted)
bounds = st.none() | st.integers(-99, 99)
entries = st.integers(-99, 99) | st.builds(slice, bounds, bounds, st.none() | st.integers(1, 9))


@given(st.lists(names, min_size=1, max_size=3), st.lists(entries, max_size=3))
def test_what_is_written_is_read_back(segments: list[str], index: list[int | slice]) -> None:
    point = Point(".".join(segments), tuple(index))
    assert parse(str(point)) == point


@pytest.mark.parametrize(
    ("text", "error", "column", "wanted"),
    [
        ("", UnknownPoint, 0, "a name"),
        ("lstm..h", UnknownPoint, 5, "a name"),
        ("lstm.h]", UnknownPoint, 6, "the end of the point"),
        ("lstm h", UnknownPoint, 5, "the end of the point"),
        ('"lstm.h', UnknownPoint, 0, "double quotes"),
        ("größe.h", UnknownPoint, 2, "the end of the point"),
        ("lstm.h[", BadParameter, 7, "an integer"),
        ("lstm.h[]", BadParameter, 7, "an integer"),
        ("lstm.h[x]", BadParameter, 7, "an integer"),
        ("lstm.h[1 2]", BadParameter, 9, "',' or ']'"),
        ("lstm.h[1:2:3:4]", BadParameter, 12, "',' or ']'"),
    ],
)
def test_an_unreadable_point_is_refused_with_the_character_pointed_at(
    text: str, error: type[Exception], column: int, wanted: str
) -> None:
    with pytest.raises(error, match="cannot be read") as caught:
        parse(text)
    *_, shown, caret = str(caught.value).splitlines()
    assert shown == f"  {text}"
    assert caret == "  " + " " * column + "^"
    assert wanted in str(caught.value)


@pytest.mark.parametrize("text", ["h[..., ...]", "h[argmax, 1]", "h[::0]"])
def test_an_index_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(BadParameter):
        parse(text)


def test_what_is_not_text_is_refused() -> None:
    with pytest.raises(BadParameter, match="not int"):
        parse(3)  # type: ignore[arg-type]
