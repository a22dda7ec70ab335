"""A report as HTML: pictures as data, styles within, no script, nothing fetched."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from tapehead.report.sections import Section

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1c1c1c; background: #fff; }
body { max-width: 52rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; border-top: 1px solid #ccc; padding-top: 1rem; }
.about, figcaption { color: #444; } figure { margin: 1rem 0; } img { width: 100%; height: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid #ddd; }
.verdict { font-weight: 600; } .healthy { color: #00614a; } .ill { color: #a33b00; }
.refused { border-left: 4px solid #a33b00; padding: .2rem .8rem; background: #fff4ee; }
pre { overflow-x: auto; background: #f5f5f5; padding: .6rem; } summary { cursor: pointer; }
@media print { h2 { break-before: auto; } figure { break-inside: avoid; } }
"""


def page(name: str, about: str, sections: Sequence[Section]) -> str:
    """The whole report of a model; `about` says what it is made of, in a line."""
    verdicts, findings = _diagnoses(sections)
    return "\n".join(
        [
            "<!DOCTYPE html>",
            f'<html lang="en"><head><meta charset="utf-8"><title>{escape(name)}: a report of its gradients</title>',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>',
            f'<body><main><h1>{escape(name)}</h1><p class="about">{escape(about)}</p>',
            *_verdict(verdicts),
            *_findings(findings),
            *(line for section in sections for line in _section(name, section)),
            "</main></body></html>\n",
        ]
    )


def _diagnoses(sections: Sequence[Section]) -> tuple[dict[str, str], list[Mapping[str, Any]]]:
    """The verdict on every layer, and what was found in all of them."""
    metas = [one.answer.meta for one in sections if one.answer is not None and one.question.operation == "diagnose"]
    verdicts = {layer: verdict for meta in metas for layer, verdict in meta["verdict"].items()}
    return verdicts, [finding for meta in metas for finding in meta["findings"]]


def _verdict(verdicts: Mapping[str, str]) -> Iterator[str]:
    if not verdicts:
        return
    yield "<h2>Verdict</h2><ul>"
    for layer, verdict in verdicts.items():
        style = "healthy" if verdict == "healthy" else "ill"
        said = escape(verdict.replace("_", " "))
        yield f'<li>{escape(layer)}: <span class="verdict {style}">{said}</span></li>'
    yield "</ul>"


def _findings(findings: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not findings:
        return
    yield "<table><thead><tr>"
    yield from (f'<th scope="col">{head}</th>' for head in ("layer", "severity", "what it means", "what people do"))
    yield "</tr></thead><tbody>"
    for one in findings:
        advice = f"{escape(one['advice'])}<br><small>{escape(one['source'])}</small>"
        cells = (escape(one["layer"]), escape(one["severity"]), f"{escape(one['meaning'])}{_number(one)}", advice)
        yield f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
    yield "</tbody></table>"


def _number(finding: Mapping[str, Any]) -> str:
    number, threshold = finding.get("number"), finding.get("threshold")
    if number is None:
        return ""
    against = "" if threshold is None else f", held against {threshold:.3g}"
    return f" <small>({escape(finding['kind'].replace('_', ' '))}: {number:.3g}{against})</small>"


def _section(name: str, section: Section) -> Iterator[str]:
    question = section.question
    yield f"<h2>{escape(question.heading)}</h2>"
    if section.answer is None:
        yield f'<p class="refused">{escape(section.refused)}</p>'
        return
    data, said = base64.b64encode(section.image).decode("ascii"), escape(section.answer.title, quote=True)
    yield f'<figure><img alt="{said}" src="data:image/png;base64,{data}">'
    yield f"<figcaption>{escape(question.why)}</figcaption></figure>"
    yield f"<details><summary>In Python</summary><pre>{escape(_code(name, section))}</pre></details>"


def _code(name: str, section: Section) -> str:
    given = section.question.parameters
    parameters = [f"{key}=…" if key == "targets" else f"{key}={value!r}" for key, value in given.items()]
    return f'answer = client.model("{name}").{section.question.operation}(x, {", ".join(parameters)})\nanswer.plot()'
