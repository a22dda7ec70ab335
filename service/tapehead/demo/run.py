"""`tapehead demo`: a real server, asked by the real client for derivatives of models trained on real series."""

from __future__ import annotations

import json
import sys
import textwrap
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import tapehead
from tapehead.demo import report, service
from tapehead.demo.series import Array
from tapehead.demo.studies import STUDIES, Study
from tapehead.pictures import decay, drawn, panel, png
from tapehead.pictures.panel import Panel, frobenius

_YEARS, _CYCLES, _MONTHS = 12, 22, 13
_STAGES = ("decode", "queue", "compute")


@dataclass
class Session:
    """The client, and how long each question took: the first time, and once more when all is compiled."""

    client: tapehead.Client
    times: list[tuple[str, float, float, Mapping[str, float]]] = field(default_factory=list)

    def ask(self, what: str, question: Callable[[], tapehead.Answer]) -> tapehead.Answer:
        """The answer to a question, which is asked twice."""
        first, _ = _timed(question)
        again, answer = _timed(question)
        self.times.append((what, first, again, answer.meta["timings"]))
        return answer


def run(out: Path, *, keep: bool = False) -> int:
    """Runs the demo, printing as it goes, and writes its pictures to `out`; the exit status."""
    print("Tapehead demo: what two trained recurrent models owe to the past\n")
    start = time.perf_counter()
    try:
        out.mkdir(parents=True, exist_ok=True)
        print("starting a server of its own ", end="", flush=True)
        with service.running(_dot) as url:
            print(f" ready in {time.perf_counter() - start:.1f} s, at {url}", flush=True)
            with tapehead.Client(url) as client:
                for line in _told(Session(client), url, out):
                    print(line, flush=True)
            if keep:
                _wait_for_interrupt(url)
    except (service.ServerFailed, OSError) as error:
        print(f"\ntapehead demo: {error}", file=sys.stderr)
        return 1
    print(f"\nThe server has ended. The whole run took {time.perf_counter() - start:.1f} s.")
    return 0


def _told(session: Session, url: str, out: Path) -> Iterator[str]:
    sunspots, co2 = STUDIES["sunspots"](), STUDIES["co2"]()
    yield from _forecasts(session)
    jacobian = session.ask(
        "Jacobian lstm.h[-1] / inputs",
        lambda: session.client.model("sunspots").jacobian(sunspots.inputs[-1:], of="lstm.h[-1]", wrt="inputs"),
    )
    yield from _hidden_state(jacobian, sunspots)
    yield from _drivers(session, sunspots, _CYCLES, "year")
    yield from _drivers(session, co2, _MONTHS, "month")
    fading = session.ask(
        "Jacobian lstm.h[-1] / lstm.h",
        lambda: session.client.model("sunspots").jacobian(sunspots.inputs[-1:], of="lstm.h[-1]", wrt="lstm.h"),
    )
    norms = frobenius(fading.value[0], (0, 2))
    yield from _fading(norms)
    yield from _times(session, url, co2)
    yield from _pictures(jacobian, norms, sunspots, out)


def _forecasts(session: Session) -> Iterator[str]:
    """What every model says at the end of its series, beside what came."""
    rows = []
    for name, make in STUDIES.items():
        study, model = make(), session.client.model(name)
        outputs = model.infer(study.inputs[-1:]).value
        asked = 0 if study.weights is None else int(np.argmax(study.weights[-1]))
        layer, about = next(iter(model.metadata["recurrent"].items()))
        said, came = float(outputs.reshape(-1)[asked]), float(study.targets[-1].reshape(-1)[asked])
        rows.append((name, f"{layer} ({about['cell']})", f"{said:.1f}", f"{came:.1f}", study.unit))
    yield "\nThe models it serves, and what each says at the end of its series"
    yield from report.table(("model", "recurrent layer", "model says", "it was", ""), rows)


def _hidden_state(jacobian: tapehead.Answer, study: Study) -> Iterator[str]:
    """Shape and norms of d h_T / d inputs."""
    norms = frobenius(jacobian.value[0], (0, 2))
    yield "\nsunspots: how the last hidden state depends on each year, d lstm.h[-1] / d inputs"
    yield f"  shape {jacobian.value.shape}: {', '.join(jacobian.axes['value'])}"
    yield f"  norm {np.linalg.norm(norms):.4g} in all; the last years' own (bars are logarithmic):"
    yield from report.log_bars(study.times[-1][-_YEARS:].tolist(), norms[-_YEARS:])


def _drivers(session: Session, study: Study, recent: int, step: str) -> Iterator[str]:
    """Which timesteps drive the forecast: the gradient of the first output."""
    saliency = session.ask(
        f"saliency of {study.model}",
        lambda: session.client.model(study.model).saliency(study.inputs[-1:], target="outputs[0]"),
    )
    gradient = saliency.value[0, :, 0]
    held = np.abs(gradient[-recent:]).sum() / np.abs(gradient).sum()
    yield f"\n{study.model}: which past {step}s drive the forecast of the next, saliency of outputs[0] (gradient)"
    yield f"  {study.unit} more for one more in that {step}; these {recent} {step}s hold {held:.1%} of the whole"
    yield from report.signed_bars(study.times[-1][-recent:].tolist(), gradient[-recent:])


def _fading(norms: Array) -> Iterator[str]:
    """How the norms of d h_T / d h_t decay."""
    fitted = decay(norms)
    back = [steps for steps in (0, 1, 2, 3, 5, 8, 11, 16, 22, 32) if steps < len(norms)]
    yield "\nsunspots: how fast the past fades, ‖d lstm.h[-1] / d lstm.h[t]‖ (bars are logarithmic)"
    yield from report.log_bars([f"{steps} back" for steps in back], norms[[-1 - steps for steps in back]])
    yield f"  fitted: {fitted}"


def _times(session: Session, url: str, study: Study) -> Iterator[str]:
    """Where the time went, by the client's clock, by the answers' own account and by the HTTP header."""
    rows = [
        (what, f"{1e3 * first:.1f}", f"{1e3 * again:.2f}", *report.milliseconds(timings, _STAGES))
        for what, first, again, timings in session.times
    ]
    yield "\nWhere the time went, in milliseconds (first: compiles; again: the same question once more)"
    yield from report.table(("question", "first", "again", *(f"of it {stage}" for stage in _STAGES)), rows)
    yield "  and the last question once more as plain HTTP and JSON, without the client:"
    header = f"Server-Timing: {_over_http(url, study)}"
    yield textwrap.fill(header, report.WIDE, initial_indent="  ", subsequent_indent="    ")


def _pictures(jacobian: tapehead.Answer, norms: Array, study: Study, out: Path) -> Iterator[str]:
    labels = {"wrt.timestep": study.times[-1].tolist()}
    sides = {"of": "lstm.h[-1]", "wrt": "inputs"}
    of_one = "d lstm.h[-1] / d inputs, per sunspot"
    by_unit = panel(jacobian.value, jacobian.axes["value"], of_one, sides=sides, labels=labels)
    over_time = Panel(norms, ("wrt.timestep",), "norm of d lstm.h[-1] / d lstm.h[t]", labels, {"wrt": "lstm.h"})
    method = f"jacobian, {jacobian.meta['precision']}"
    figures = {
        "jacobian.png": drawn([("heatmap", by_unit)], title=f"sunspots: d lstm.h[-1] / d inputs ({method})"),
        "decay.png": drawn([("norms", over_time)], title=f"sunspots: how fast the past fades ({method})"),
    }
    yield "\nPictures"
    for name, figure in figures.items():
        (out / name).write_bytes(png(figure))
        yield f"  {out / name}"


def _over_http(url: str, study: Study) -> str:
    """The stages' times of one question asked in JSON, as the reply's header says them."""
    body = json.dumps({"inputs": study.inputs[-1:].tolist(), "target": "outputs[0]"}).encode()
    request = urllib.request.Request(
        f"{url}/v2/models/{study.model}/saliency", body, {"Content-Type": "application/json"}
    )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=60) as reply:
        return str(reply.headers["Server-Timing"])


def _wait_for_interrupt(url: str) -> None:
    print(f"\nThe server goes on at {url} until Ctrl-C. Try:\n{curl_line(url)}", flush=True)
    try:
        while True:
            time.sleep(1)
    except KeyboardInterrupt:
        print()


def curl_line(url: str) -> str:
    """A command for the shell that asks the server which of six years drive the forecast of the next."""
    body = '{"inputs": [[[66], [46], [39], [33], [36], [11]]], "target": "outputs[0]"}'
    return f"  curl {url}/v2/models/sunspots/saliency -H 'Content-Type: application/json' \\\n       -d '{body}'"


def _dot() -> None:
    print(".", end="", flush=True)


def _timed(question: Callable[[], tapehead.Answer]) -> tuple[float, tapehead.Answer]:
    start = time.perf_counter()
    answer = question()
    return time.perf_counter() - start, answer
