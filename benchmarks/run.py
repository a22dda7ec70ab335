"""Every workload, ours and each peer in one run, interleaved: the table, results.json, and two plots.

python -m benchmarks.run [--only NAME …] [--quick] [--out FOLDER]

A NAME is a workload's, or a part of it (`jacobian-lstm`, `lag`, `timesteps`); then nothing is written unless --out says
where. Times are medians; the ratio is the fastest peer's over ours.
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

from benchmarks.workloads import CURVES, WORKLOADS, Workload

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
    given = parser.parse_args(arguments)
    # The peers here are processor builds; a card would be measured against nothing.
    os.environ.update({"CUDA_VISIBLE_DEVICES": "-1", **_ENVIRONMENT})
    chosen = [one for one in _all(curves=not given.quick or bool(given.only)) if _named(one, given.only)]
    out = given.out or (None if given.only else _HERE)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    rows = list(_measured(chosen, quick=given.quick, out=out))
    if out is not None:
        _draw(rows, out)
    if not rows:
        print(f"no workload is named so; they are: {', '.join(one.name for one in _all(curves=True))}")
    return 0 if rows and not any(row.disagreements for row in rows) else 1


def _all(*, curves: bool) -> list[Workload]:
    return [*WORKLOADS, *(one for curve in CURVES.values() for one in curve if curves)]


def _named(workload: Workload, names: Sequence[str] | None) -> bool:
    return not names or any(name in workload.name for name in names)


def _measured(workloads: Iterable[Workload], *, quick: bool, out: Path | None) -> Iterable[Row]:
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
            _write(out / "results.json", began, rows)
        yield rows[-1]


_HEAD = f"{'workload':<34}{'ours':>10}  {'ratio':>6} {'asked':>5}  {'of its limit':<22} peers, milliseconds"


def _line(row: Row) -> str:
    from benchmarks.rows import OURS

    peers = ", ".join(f"{name} {_number(ms)}" for name, ms in row.ms.items() if name != OURS)
    shares = ", ".join(f"{value:.0%} {name}" for name, value in row.shares.items())
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    asked = "" if row.workload.asked is None else f"{row.workload.asked:g}"
    name = row.workload.name if "×" in row.workload.name else f"{row.workload.name} {row.workload.size}"
    return f"{name:<34}{_number(row.ms[OURS]):>10}  {ratio:>6} {asked:>5}  {shares:<22} {peers}{_remarks(row)}"


def _remarks(row: Row) -> str:
    memory = "" if row.peak_mib is None else f"; at most {row.peak_mib:.0f} MiB above the model"
    left = "".join(f"; {name}: {why}" for name, why in row.left_out.items())
    return memory + left + "".join(f"\n  {one}" for one in row.disagreements)


def _number(ms: float) -> str:
    return f"{ms:.2f}" if ms < 10 else f"{ms:.1f}" if ms < 100 else f"{ms:.0f}"


def _write(path: Path, began: datetime, rows: Sequence[Row]) -> None:
    found = {
        "date": began.isoformat(timespec="seconds"),
        "machine": _machine(),
        "versions": _versions(),
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
