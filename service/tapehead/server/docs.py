"""The page at /docs: the OpenAPI description as one HTML document, without a script and without the network.

Swagger UI would have to be shipped here, a megabyte of somebody's minified JavaScript to be kept up to date; it needs a
looser Content-Security-Policy, and cannot send msgpack in any case.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
code, pre { font: 0.9em/1.45 ui-monospace, monospace; background: var(--soft); border-radius: 4px; }
code { padding: 0.1em 0.3em; } pre { padding: 0.8em 1em; overflow-x: auto; } pre code { background: none; padding: 0; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; } details { border-top: 1px solid var(--line); padding: 0.6rem 0; }
summary { cursor: pointer; } summary span { opacity: 0.75; } table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: 0.3rem 0.8rem 0.3rem 0; border-top: 1px solid var(--line); }
"""
_DIGEST = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
HEADERS = {"Content-Security-Policy": f"default-src 'self'; style-src 'sha256-{_DIGEST}'; frame-ancestors 'none'"}

_EXAMPLE = """curl http://127.0.0.1:8000/v2/models/MODEL/jacobian -H 'Content-Type: application/json' \\
  -d '{"inputs": [[[0.1], [0.2], [0.3]]], "of": "lstm.h[-1]", "wrt": "inputs"}'"""


def page(document: Mapping[str, Any]) -> str:
    """An OpenAPI document as HTML."""
    info, schemas = document["info"], document["components"]["schemas"]
    return "\n".join(
        (
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(info['title'])}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>",
            f"<p>{escape(info.get('summary', ''))}</p>",
            f"<p>{escape(info.get('description', ''))}</p>",
            f"<pre><code>{escape(_EXAMPLE)}</code></pre>",
            '<p>The same for programs: <a href="openapi.json">openapi.json</a>.</p>',
            *_sections(document["paths"], schemas),
            "<h2>Schemas</h2>",
            *(_schema(name, schema) for name, schema in schemas.items()),
            "</body></html>",
        )
    )


def _sections(paths: Mapping[str, Any], schemas: Mapping[str, Any]) -> Iterator[str]:
    """The endpoints, under a heading for each tag."""
    tagged: dict[str, list[str]] = {}
    for path, methods in paths.items():
        for method, endpoint in methods.items():
            if "{version}" not in path:
                shown = _endpoint(method, path, endpoint, _body(endpoint, schemas))
                tagged.setdefault(endpoint["tags"][0], []).append(shown)
    for tag, endpoints in tagged.items():
        yield f"<h2>{escape(tag.capitalize())}</h2>"
        yield from endpoints


def _endpoint(method: str, path: str, endpoint: Mapping[str, Any], body: Mapping[str, Any]) -> str:
    said = endpoint.get("description") or endpoint.get("summary", "")
    return (
        f"<details><summary><code>{method.upper()} {escape(path)}</code> <span>{escape(said)}</span></summary>"
        f"{_fields(body.get('properties', {}), body.get('required', ()))}</details>"
    )


def _body(endpoint: Mapping[str, Any], schemas: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of an endpoint's JSON body; an empty one where it has none."""
    content = endpoint.get("requestBody", {}).get("content", {}).get("application/json", {})
    return schemas.get(_type(content.get("schema", {})), {})  # type: ignore[no-any-return]


def _fields(properties: Mapping[str, Any], required: Any) -> str:
    rows = [_field(name, schema, name in required) for name, schema in properties.items()]
    return f"<table><tr><th>field<th>type<th>default<th></tr>{''.join(rows)}</table>" if rows else ""


def _field(name: str, schema: Mapping[str, Any], required: bool) -> str:
    default = "required" if required else json.dumps(schema["default"]) if "default" in schema else ""
    cells = (name, _type(schema), default, schema.get("description", ""))
    return f"<tr>{''.join(f'<td>{escape(cell)}' for cell in cells)}</tr>"


def _type(schema: Mapping[str, Any]) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "anyOf" in schema:
        return " or ".join(map(_type, schema["anyOf"]))
    if "items" in schema:
        return f"list of {_type(schema['items'])}"
    if isinstance(schema.get("additionalProperties"), Mapping):
        return f"map to {_type(schema['additionalProperties'])}"
    return str(schema.get("type", "anything"))


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    shown = escape(json.dumps(schema, indent=2, ensure_ascii=False))
    return f"<details><summary><code>{escape(name)}</code></summary><pre><code>{shown}</code></pre></details>"
