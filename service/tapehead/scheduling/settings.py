"""How requests are taken and workers kept."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FleetSettings:
    """The settings of a fleet; times in seconds, sizes in bytes.

    Attributes:
        devices: one worker for each of these; None for every device that the first worker sees.
        queue_limit: how many requests may wait and be computed at once.
        batch_limit: how many that are alike go to a worker together.
        deadline_s: how long a request may take that names no deadline of its own.
        answer_limit: the most bytes of an answer.
        stream_threshold: from how many bytes on an answer is passed on while it is computed, where that is asked for.
        preload: whether the newest version of every model is loaded at start, or each at its first request.
        warm_up: the shapes, (batch, timesteps), at which a model is tried after it is loaded and before it is ready.
        rescan_s: for how long what was seen in the repository is believed.
        restart_pauses_s: the waits before the first, second … start of a worker after deaths in quick succession.
    """

    devices: tuple[str, ...] | None = None
    queue_limit: int = 256
    batch_limit: int = 16
    deadline_s: float = 120.0
    answer_limit: int = 1 << 30
    stream_threshold: int = 32 << 20
    preload: bool = True
    warm_up: tuple[tuple[int, int], ...] = ()
    rescan_s: float = 1.0
    restart_pauses_s: tuple[float, ...] = (0.0, 0.5, 2.0, 5.0, 15.0, 30.0)
