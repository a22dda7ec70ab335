"""Many inputs on their way to answers: which are asked now, and whose answer is next. No I/O.

The two clients ask what is due side by side and settle it as it ends, in whatever order; it is given in the order of
the inputs. Inputs are drawn only as they are due, and few answers wait for their turn: neither need fit in memory.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterable, Iterator
from typing import Protocol, TypeVar, cast

from tapehead.client.answers import Answer
from tapehead.client.calls import Flow
from tapehead.client.progress import Progress
from tapehead.errors import BadParameter, TapeheadError

Ending = Answer | TapeheadError
"""What became of an input."""

T = TypeVar("T", covariant=True)

AHEAD = 2
"""How many times `concurrency` inputs are asked or answered before the first of them is given: one slow answer holds up
none of the others for a while."""


class Finished(Protocol):
    """What the futures of threads and of event loops have in common."""

    def result(self) -> Answer: ...
    def exception(self) -> BaseException | None: ...


class Many:
    """Inputs, each a flow to its answer, of which at most `concurrency` are asked at a time.

    Args:
        total: how many there are; None where that is known only at the end.
        report: called with how many have ended, and the total.
    """

    def __init__(
        self, flows: Iterable[Flow[Answer]], concurrency: int, total: int | None = None, report: Progress | None = None
    ) -> None:
        if concurrency < 1:
            raise BadParameter(f"concurrency is {concurrency}; expected at least 1 request at a time")
        self.concurrency = concurrency
        self._total, self._report = total, report
        self._flows = enumerate(flows)
        self._ended = 0
        self._drawn = self._given = 0
        self._exhausted = False
        self._settled: dict[int, Ending] = {}

    @property
    def over(self) -> bool:
        """Whether every input's ending has been given."""
        return self._exhausted and self._given == self._drawn

    @property
    def ready(self) -> bool:
        """Whether the next in the order of the inputs has ended."""
        return self._given in self._settled

    def due(self) -> Iterator[tuple[int, Flow[Answer]]]:
        """The inputs to be asked now, by their index."""
        while not self._exhausted and self._has_room:
            drawn = next(self._flows, None)
            if drawn is None:
                self._end()
                return
            self._drawn += 1
            yield drawn

    def settle(self, index: int, finished: Finished) -> None:
        """An input has ended.

        Raises:
            BaseException: what is no error of Tapehead's is no ending either.
        """
        error = finished.exception()
        if error is not None and not isinstance(error, TapeheadError):
            raise error
        self._settled[index] = finished.result() if error is None else _of_input(index, error)
        self._ended += 1
        self._tell()

    def give(self) -> Ending:
        """The next ending in the order of the inputs."""
        self._given += 1
        return self._settled.pop(self._given - 1)

    @property
    def _has_room(self) -> bool:
        asked, waiting = self._drawn - self._ended, self._drawn - self._given
        return asked < self.concurrency and waiting < AHEAD * self.concurrency

    def _end(self) -> None:
        """There are no more inputs; it is known how many there were."""
        self._exhausted = True
        known, self._total = self._total, self._drawn
        if known != self._drawn:
            self._tell()

    def _tell(self) -> None:
        if self._report is not None:
            self._report(self._ended, self._total)


def _of_input(index: int, error: TapeheadError) -> TapeheadError:
    """The error, saying which input's it is."""
    named = type(error)(f"input {index}: {error.detail}", retry_after=error.retry_after, request_id=error.request_id)
    named.__cause__ = error
    return named


class Answers(Iterator[T]):
    """The answers in the order of the inputs.

    Where an input's own is an error, `next` raises it, and the `next` after that goes on with the input after it.
    Errors are given among the answers instead where `return_exceptions` was asked for.
    """

    def __init__(self, endings: Generator[Ending], *, return_exceptions: bool) -> None:
        self._endings = endings
        self._return_exceptions = return_exceptions

    def __next__(self) -> T:
        return cast(T, _answer(next(self._endings), self._return_exceptions))

    def close(self) -> None:
        """Asks nothing more; what is on its way is not waited for."""
        self._endings.close()


class AsyncAnswers(AsyncIterator[T]):
    """`Answers`, to be iterated by `async for`."""

    def __init__(self, endings: AsyncGenerator[Ending], *, return_exceptions: bool) -> None:
        self._endings = endings
        self._return_exceptions = return_exceptions

    async def __anext__(self) -> T:
        return cast(T, _answer(await anext(self._endings), self._return_exceptions))

    async def aclose(self) -> None:
        """Asks nothing more; what is on its way is given up."""
        await self._endings.aclose()


def _answer(ending: Ending, return_exceptions: bool) -> Ending:
    if isinstance(ending, TapeheadError) and not return_exceptions:
        raise ending
    return ending
