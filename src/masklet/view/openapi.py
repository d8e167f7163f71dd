"""What the server can be asked, as an OpenAPI document and as a page to read: both are made of `view.verbs.VERBS`."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from masklet.view.verbs import VERBS, Verb

VERSION = "1"  # of these requests; grows where one that worked works no more
ABOUT = (
    "Videos and their results, open in one server. Verbs are asked by POST with a JSON object of arguments; what "
    "cannot be done is answered with status 400 and a sentence. Work that takes long (propagate, export, compare) is "
    "begun at once: ask progress until it no longer runs."
)
NUMBER: Mapping[str, Any] = {"type": "integer", "minimum": 0}
VIDEO = {"name": "video", "in": "path", "required": True, "schema": NUMBER, "description": "its number in GET /videos"}
FRAME = {"name": "frame", "in": "path", "required": True, "schema": NUMBER, "description": "from 0 on"}
SIDE = {"name": "side", "in": "query", "schema": NUMBER, "description": "pixels of its longer side, at most"}
ERROR = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}


def build_openapi() -> dict[str, Any]:
    """The OpenAPI 3.1 document of the server."""
    listed = {"type": "array", "items": {"type": "object", "description": "name, and how many objects"}}
    frame = {"description": "the frame", "content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}}
    frames = {"200": frame, "404": _answer("there is none", ERROR)}
    videos = {"200": _answer("the videos", listed)}
    paths: dict[str, Any] = {
        "/videos": {"get": _describe("list_videos", "The open videos, in order.", videos)},
        "/videos/{video}/frames/{frame}.jpg": {
            "get": _describe("read_frame", "A frame as JPEG.", frames, VIDEO, FRAME, SIDE)
        },
    }
    paths |= {f"/videos/{{video}}/{verb.name}": {"post": describe_verb(verb)} for verb in VERBS.values()}
    return {
        "openapi": "3.1.0",
        "info": {"title": "masklet", "version": VERSION, "description": ABOUT},
        "paths": paths,
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "security": [{"token": []}],
    }


def describe_verb(verb: Verb) -> dict[str, Any]:
    """A verb as an operation of OpenAPI."""
    properties = {
        name: {
            **one.kind.schema,
            "description": one.help,
            **({} if one.default is ... else {"default": one.default}),
        }
        for name, one in verb.arguments.items()
    }
    needed = [name for name, one in verb.arguments.items() if one.default is ...]
    schema = {"type": "object", "properties": properties, "required": needed, "additionalProperties": False}
    told = {"200": _answer("done", {"type": "object"}), "400": _answer("why it cannot be done, in a sentence", ERROR)}
    body = {"required": True, "content": {"application/json": {"schema": schema}}}
    return {**_describe(verb.name, verb.help, told, VIDEO), "requestBody": body}


def _describe(name: str, help: str, responses: Mapping[str, Any], *parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {"operationId": name, "summary": help, "parameters": list(parameters), "responses": dict(responses)}


def _answer(description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def render_reference() -> str:
    """The same as a page in HTML that needs nothing but itself and its style sheet."""
    told = build_openapi()
    sections = [
        _render_operation(method, path, operation)
        for path, methods in told["paths"].items()
        for method, operation in methods.items()
    ]
    head = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>masklet: requests</title>'
        '<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
        '<link rel="stylesheet" href="/page/api.css">'
    )
    first = (
        f"<h1>masklet: what can be asked, version {VERSION}</h1><p>{escape(ABOUT)}</p>"
        "<p>Send the token as <code>authorization: Bearer TOKEN</code>. The same for programs: "
        '<a href="/openapi.json">openapi.json</a> (OpenAPI 3.1).</p>'
    )
    return f"{head}<main>{first}{''.join(sections)}</main></html>"


def _render_operation(method: str, path: str, operation: Mapping[str, Any]) -> str:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    rows = [
        _render_argument(name, schema, name in body["required"]) for name, schema in body.get("properties", {}).items()
    ]
    head = '<thead><tr><th scope="col">argument<th scope="col">is<th scope="col">means<th scope="col">else</thead>'
    table = f"<table>{head}<tbody>{''.join(rows)}</tbody></table>" if rows else ""
    title = f"<h2><span>{method.upper()}</span> <code>{escape(path)}</code></h2>"
    return f"<section>{title}<p>{escape(operation['summary'])}</p>{table}</section>"


def _render_argument(name: str, schema: Mapping[str, Any], needed: bool) -> str:
    kind = schema.get("type", "")
    words = " or ".join(kind) if isinstance(kind, list) else str(kind)
    default = "must be given" if needed else repr(schema.get("default"))
    cells = (f"<code>{escape(name)}</code>", escape(words), escape(schema["description"]), escape(default))
    return "<tr>" + "".join(f"<td>{cell}" for cell in cells) + "</tr>"
