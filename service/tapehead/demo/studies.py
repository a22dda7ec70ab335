"""What each demo model is asked: sequences cut from a record, and what follows each. No TensorFlow.

Nothing from 1960 on (sunspots) or 1990 on (CO₂) is learnt from: those samples tell how good a model is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from tapehead.demo import series
from tapehead.demo.series import Array

Labels = npt.NDArray[np.str_]
Mask = npt.NDArray[np.bool_]
T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class Study:
    """One model's samples, in time's order.

    `inputs` are (samples, timesteps, features), `times` (samples, timesteps) the label of every timestep. `learnt` and
    `held_out` mark samples; what is in neither straddles the two. `rivals` are simple forecasts in the shape of
    `targets`. `weights`, where given, are (samples, timesteps): which of the targets are asked for.
    """

    model: str
    question: str
    unit: str
    features: tuple[str, ...]
    inputs: Array
    targets: Array
    times: Labels
    learnt: Mask
    held_out: Mask
    rivals: Mapping[str, Array]
    weights: Array | None = None


def sunspots() -> Study:
    """Next year's sunspot number from the 40 years before it."""
    record, past = series.sunspots(), 40
    cut = _cut(record.values, past + 1)
    times = _cut(np.array(record.times), past + 1)
    return Study(
        model="sunspots",
        question="the sunspot number of the next year, from 40 years",
        unit=record.unit,
        features=("sunspots",),
        inputs=cut[:, :past, None],
        targets=cut[:, past:],
        times=times[:, :past],
        learnt=times[:, past] < "1960",
        held_out=times[:, past] >= "1960",
        rivals={
            "same as the year before": cut[:, past - 1 : past],
            "same as 11 years before": cut[:, past - 11 : past - 10],
        },
    )


def sunspots_delays() -> Study:
    """Next year's sunspot number, every timestep holding its year and the 11 before it."""
    record, past, delays = series.sunspots(), 20, 12
    recent = _cut(record.values, delays)[:, ::-1]
    cut = np.swapaxes(_cut(recent[:-1], past), 1, 2)
    targets = record.values[past + delays - 1 :, None]
    times = np.array(record.times)
    return Study(
        model="sunspots_delays",
        question="the sunspot number of the next year, from 20 timesteps of 12 years each",
        unit=record.unit,
        features=("this year", *(f"{years} before" for years in range(1, delays))),
        inputs=cut,
        targets=targets,
        times=_cut(times[delays - 1 : -1], past),
        learnt=times[past + delays - 1 :] < "1960",
        held_out=times[past + delays - 1 :] >= "1960",
        rivals={"same as the year before": cut[:, -1, :1], "same as 11 years before": cut[:, -1, 10:11]},
    )


def sunspots_bidirectional() -> Study:
    """The sunspot number of one hidden year, from the years on both sides of it."""
    record, span, each = series.sunspots(), 25, 5
    cut, times = _cut(record.values, span), _cut(np.array(record.times), span)
    sample = np.repeat(np.arange(len(cut)), each)
    hidden = 1 + (7 * sample + np.tile(np.arange(each), len(cut)) * (span - 2) // each) % (span - 2)
    asked = np.arange(span) == hidden[:, None]
    values, years = cut[sample], times[sample]
    known = np.where(asked, 0, values)
    year = years[asked]
    before = np.roll(values, 1, axis=1)
    between = np.asarray((before + np.roll(values, -1, axis=1)) / 2, np.float32)
    return Study(
        model="sunspots_bidirectional",
        question="the sunspot number of a hidden year, from the 24 around it",
        unit=record.unit,
        features=("sunspots", "known"),
        inputs=np.stack([known, ~asked], axis=-1).astype(np.float32),
        targets=values[..., None],
        times=years,
        learnt=years[:, -1] < "1960",
        held_out=year >= "1960",
        rivals={"same as the year before": before[..., None], "midway between its neighbours": between[..., None]},
        weights=asked.astype(np.float32),
    )


def co2() -> Study:
    """CO₂ in the next 12 months, counted from the mean of the 12 before, from 36 months of level and season."""
    record, past, ahead, year = series.co2(), 36, 12, 12
    mean = _cut(record.values, year).mean(axis=1)
    values, times = record.values[year - 1 :], np.array(record.times[year - 1 :])
    angle = np.array([2 * np.pi * int(time[5:]) / year for time in times])
    steps = np.stack([values - mean, np.sin(angle), np.cos(angle)], axis=-1).astype(np.float32)
    now = np.arange(past - 1, len(values) - ahead)
    months = now[:, None] + 1 + np.arange(ahead)
    level = mean[now, None]
    rise = level - mean[now - year, None]
    return Study(
        model="co2",
        question="CO₂ in the next 12 months, above the mean of the 12 before, from 36 months",
        unit=record.unit,
        features=("above the year's mean", "season sine", "season cosine"),
        inputs=np.swapaxes(_cut(steps, past), 1, 2)[: len(now)],
        targets=values[months] - level,
        times=_cut(times, past)[: len(now)],
        learnt=times[months[:, -1]] < "1990",
        held_out=times[months[:, 0]] >= "1990",
        rivals={
            "same as the last month": np.repeat(values[now, None] - level, ahead, axis=1),
            "a year before, risen as last year": values[months - year] + rise - level,
        },
    )


STUDIES: Mapping[str, Callable[[], Study]] = {
    "sunspots": sunspots,
    "co2": co2,
    "sunspots_bidirectional": sunspots_bidirectional,
    "sunspots_delays": sunspots_delays,
}


def rmse(study: Study, forecasts: Array, samples: Mask) -> float:
    """The root mean square error over `samples`, in the study's unit, of the targets that are asked for."""
    squares = np.square(forecasts - study.targets)[samples]
    weights = None if study.weights is None else study.weights[samples][..., None]
    return float(np.sqrt(np.average(squares, weights=weights)))


def _cut(values: npt.NDArray[T], length: int) -> npt.NDArray[T]:
    """Every stretch of `length` entries along the first axis, as a last axis."""
    return np.lib.stride_tricks.sliding_window_view(values, length, axis=0)
