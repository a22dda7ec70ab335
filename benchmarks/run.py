"""Every workload, ours and each peer in one run, interleaved: the table, results.json, and two plots.

python -m benchmarks.run [--only NAME …] [--quick] [--out FOLDER] [--keep]

A NAME is a workload's, or a part of it (`jacobian-lstm`, `lag`, `timesteps`); then nothing is written unless --out says
where. With --keep the rows that results.json has of other workloads stay, so that a long run can be made in parts.
Times are medians; the ratio is the fastest peer's over ours, and what a row falls short of is said behind it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.workloads import CURVES, EVERY, GROWTH, WORKLOADS, Workload

if TYPE_CHECKING:
    from benchmarks.rows import Row

_HERE = Path(__file__).parent
_LIBRARIES = ("tapehead", "tensorflow-cpu", "tensorflow", "keras", "jax", "jaxlib", "torch", "captum", "numpy")
_ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow", "JAX_PLATFORMS": "cpu"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the workloads and prints their rows as they come."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", action="append", metavar="NAME", help="a workload's name, or a part of it")
    parser.add_argument("--quick", action="store_true", help="fewer repeats, no plots' points beyond the table")
    parser.add_argument("--out", type=Path, help="folder for results.json and the plots")
    parser.add_argument("--keep", action="store_true", help="keep results.json's rows of other workloads")
    given = parser.parse_args(arguments)
    # The peers here are processor builds; a card would be measured against nothing.
    os.environ.update({"CUDA_VISIBLE_DEVICES": "-1", **_ENVIRONMENT})
    chosen = [one for one in _all(curves=not given.quick or bool(given.only)) if _named(one, given.only)]
    out = given.out or (None if given.only else _HERE)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    kept = _kept(out / "results.json", chosen) if given.keep and out is not None else []
    rows = list(_measured(chosen, kept, quick=given.quick, out=out))
    print("".join(f"{line}\n" for line in _growth([*kept, *rows])), end="")
    if out is not None:
        _draw([*kept, *rows], out)
    if not rows:
        print(f"no workload is named so; they are: {', '.join(one.name for one in _all(curves=True))}")
    return 0 if rows and not any(row.disagreements for row in rows) else 1


def _all(*, curves: bool) -> list[Workload]:
    return [*WORKLOADS, *(one for curve in CURVES.values() for one in curve if curves)]


def _named(workload: Workload, names: Sequence[str] | None) -> bool:
    return not names or any(name == workload.name if name in EVERY else name in workload.name for name in names)


def _kept(path: Path, chosen: Sequence[Workload]) -> list[Row]:
    """The rows of a file that are not measured again."""
    from benchmarks.rows import from_plain

    written = json.loads(path.read_text("utf-8"))["workloads"] if path.exists() else []
    return [from_plain(one) for one in written if one["name"] not in {workload.name for workload in chosen}]


def _measured(workloads: Iterable[Workload], kept: Sequence[Row], *, quick: bool, out: Path | None) -> Iterable[Row]:
    """The rows, printed and written one by one, so that a run that is broken off leaves what it had."""
    from benchmarks.contest import Effort
    from benchmarks.rows import measured

    effort = Effort(2, 5, 2.0) if quick else Effort()
    began, rows = datetime.now(UTC), []
    print(_HEAD, flush=True)
    for workload in workloads:
        rows.append(measured(workload, effort))
        print(_line(rows[-1]), flush=True)
        if out is not None:
            _write(out / "results.json", began, [*kept, *rows])
        yield rows[-1]


def _growth(rows: Sequence[Row]) -> Iterable[str]:
    """A line on how the cost grows with the timesteps, where the curve was measured."""
    from benchmarks.growth import LONG, exponents

    curve = [row for row in rows if row.workload in CURVES["timesteps"]]
    for least in (0, LONG):
        found = ", ".join(f"{name} T^{k:.2f}" for name, k in exponents(curve, least).items())
        if found:
            yield f"cost against T timesteps{f', from {least} on' if least else ''}: {found}; asked at most T^{GROWTH}"


_HEAD = f"{'workload':<34}{'ours':>10}  {'ratio':>6}  {'of its limit':<22} peers, milliseconds"


def _line(row: Row) -> str:
    from benchmarks.rows import OURS

    peers = ", ".join(f"{name} {_number(ms)}" for name, ms in row.ms.items() if name != OURS)
    shares = ", ".join(f"{value:.0%} {name}" for name, value in row.shares.items())
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    name = row.workload.name if "×" in row.workload.name else f"{row.workload.name} {row.workload.size}"
    return f"{name:<34}{_number(row.ms[OURS]):>10}  {ratio:>6}  {shares:<22} {peers}{_remarks(row)}"


def _remarks(row: Row) -> str:
    memory = "" if row.peak_mib is None else f"; at most {row.peak_mib:.0f} MiB above the model"
    left = "".join(f"; {name}: {why}" for name, why in row.left_out.items())
    short = f"; short: {', '.join(row.short)}" if row.short else ""
    return memory + left + short + "".join(f"\n  {one}" for one in row.disagreements)


def _number(ms: float) -> str:
    return f"{ms:.2f}" if ms < 10 else f"{ms:.1f}" if ms < 100 else f"{ms:.0f}"


def _write(path: Path, began: datetime, rows: Sequence[Row]) -> None:
    from benchmarks.growth import LONG, exponents

    curve = [row for row in rows if row.workload in CURVES["timesteps"]]
    found = {
        "date": began.isoformat(timespec="seconds"),
        "machine": _machine(),
        "versions": _versions(),
        "growth": {f"from {least}": exponents(curve, least) for least in (0, LONG)},
        "workloads": [row.to_plain() for row in rows],
    }
    path.write_text(json.dumps(_rounded(found), indent=1, ensure_ascii=False) + "\n", "utf-8")


def _machine() -> dict[str, Any]:
    return {"system": platform.platform(), "processor": _processor(), "cores": os.cpu_count()}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def _rounded(value: Any) -> Any:
    """The same with every number to four figures, which is more than a run can tell."""
    match value:
        case float():
            return float(f"{value:.4g}")
        case Mapping():
            return {key: _rounded(one) for key, one in value.items()}
        case list() | tuple():
            return [_rounded(one) for one in value]
    return value


def _draw(rows: Sequence[Row], out: Path) -> None:
    from benchmarks.pictures import draw

    for length, curve in CURVES.items():
        found = [row for row in rows if row.workload in curve]
        if found:
            draw(found, length, out / f"{length}.png")


if __name__ == "__main__":
    raise SystemExit(main())
