"""How fast answers are computed here, learnt from those that were."""

from __future__ import annotations

FIRST_GUESS = 1e9
"""Operations a second, before any answer has told better: a processor that runs recurrences of a few dozen units, where
it waits for memory and for the next timestep more than it multiplies."""

OVERHEAD_S = 0.005
"""What an answer takes on its way to a worker and back, however little there is to compute."""

_RECENT = 0.1
"""The weight of the newest answer: about the last twenty count."""


class Speed:
    """Operations a second, as an exponential average over answers in which long ones weigh more.

    Operations and seconds are averaged each for itself, so that many small answers, which are all overhead, do not hide
    what a large one showed.
    """

    def __init__(self) -> None:
        self._flops, self._seconds = 0.0, 0.0

    @property
    def flops_a_second(self) -> float:
        """The rate."""
        return self._flops / self._seconds if self._flops and self._seconds else FIRST_GUESS

    def note(self, flops: int, seconds: float) -> None:
        """An answer of `flops` operations took `seconds`."""
        beyond = max(seconds - OVERHEAD_S, 0.0)
        self._flops += _RECENT * (flops - self._flops)
        self._seconds += _RECENT * (beyond - self._seconds)

    def seconds(self, flops: int) -> float:
        """About how long an answer of `flops` operations will take."""
        return OVERHEAD_S + flops / self.flops_a_second
