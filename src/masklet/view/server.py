"""The page's server: `view.verbs` as JSON, frames as JPEG, and the page itself. It reads no file that a request names.

Who may ask: a browser that was shown the token once and got a cookie for it, or a program that sends the token. A
request that names another host, or that another page sends, is refused.
"""

from __future__ import annotations

import hmac
import json
import platform
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from ipaddress import ip_address
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from masklet.core.errors import InputError
from masklet.core.limits import quote_value
from masklet.view.desk import Desk
from masklet.view.frame_store import choose_side
from masklet.view.openapi import build_openapi, render_reference
from masklet.view.survey import COURTESY
from masklet.view.verbs import check_frame, run_verb

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
MOST_BODY = 16 << 20  # bytes of a request
PAGE = {"page.css": "text/css", "page.js": "text/javascript", "api.css": "text/css"}
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}
TO_PAGE = (
    '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0;url=/"><title>masklet</title>'
    '<link rel="icon" href="data:,">'
)
REFUSED = "This page opens at the address that masklet view has printed, with the token in it."


@dataclass(frozen=True)
class Gate:
    """Who may ask."""

    token: str
    hosts: Sequence[str]  # by which the server may be called, without the port; "*": by any address
    port: int

    @property
    def cookie(self) -> str:
        """Its name: other ports of this machine share its cookies."""
        return f"masklet-{self.port}"

    def find_problem(self, request: Request) -> str:
        """Why a request is refused; "": it is not."""
        if not self._is_own_host(request.headers.get("host", "")):
            return "unknown host"
        origin = request.headers.get("origin")
        if origin is not None and not self._is_own_origin(origin, request.headers["host"]):
            return "request of another page"
        if self.is_first_visit(request):
            return ""
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return "request of another page"
        return "" if self.knows(self._find_token(request)) else REFUSED

    def is_first_visit(self, request: Request) -> bool:
        """Whether a request is the page's own address with the token in it, wherever the link was found."""
        token = request.query_params.get("token", "")
        return request.method == "GET" and request.url.path == "/" and self.knows(token)

    def knows(self, token: str) -> bool:
        """Whether this is the token."""
        return hmac.compare_digest(token.encode(), self.token.encode())

    def _find_token(self, request: Request) -> str:
        kind, _, sent = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return sent
        if request.method == "POST" and "origin" not in request.headers:
            return ""  # a browser says where it comes from; a cookie alone is not enough
        return request.cookies.get(self.cookie, "")

    def _is_own_host(self, host: str) -> bool:
        name, _, port = host.rpartition(":")
        if port != str(self.port):
            return False
        return name in self.hosts or ("*" in self.hosts and (is_address(name) or name == platform.node()))

    def _is_own_origin(self, origin: str, host: str) -> bool:
        return origin in (f"http://{host}", f"https://{host}")


def is_address(name: str) -> bool:
    """Whether a host is an IP address, which no other page can have for its own.

    >>> is_address("192.168.0.7"), is_address("[::1]"), is_address("evil.example")
    (True, True, False)
    """
    try:
        ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def make_token() -> str:
    """A new token that nobody guesses."""
    return secrets.token_urlsafe(24)


class GuardedApp:
    """Refuses who may not ask, before anything else is looked at, and sets the headers of every answer."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self.app, self.gate = app, gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # no websockets here; the server's own start and end
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message["headers"], *own]
            await send(message)

        response = self._answer(Request(scope))
        await (self.app if response is None else response)(scope, receive, send_with_headers)

    def _answer(self, request: Request) -> Response | None:
        """What is answered before the app is asked; None: nothing."""
        problem = self.gate.find_problem(request)
        if problem:
            return PlainTextResponse(f"masklet: {problem}", status_code=403)
        if not self.gate.is_first_visit(request):
            return None
        # No redirect: after one that another site's link began, browsers would not send the cookie.
        response = Response(TO_PAGE, media_type="text/html")
        response.set_cookie(self.gate.cookie, self.gate.token, httponly=True, samesite="strict", path="/")
        return response


def build_app(desks: Sequence[Desk], gate: Gate) -> ASGIApp:
    """The server of some open videos, for those whom the `gate` lets in."""

    async def show_page(request: Request) -> Response:
        return Response(read_page_file("index.html"), media_type="text/html")

    async def give_page_file(request: Request) -> Response:
        name = request.path_params["name"]
        return (
            Response(read_page_file(name), media_type=PAGE[name]) if name in PAGE else answer_error("no such page", 404)
        )

    async def show_reference(request: Request) -> Response:
        return Response(render_reference(), media_type="text/html")

    async def give_openapi(request: Request) -> Response:
        return answer_json(build_openapi())

    async def list_videos(request: Request) -> Response:
        return answer_json([{"name": desk.name, "objects": len(desk.result.masklets)} for desk in desks])

    async def give_frame(request: Request) -> Response:
        COURTESY.note()
        try:
            desk = find_desk(desks, request.path_params["video"])
            side = choose_side(int(request.query_params.get("side", "3840")[:6]))
            data = await run_in_threadpool(read_frame, desk, request.path_params["frame"], side)
        except (InputError, ValueError) as error:
            return answer_error(str(error), 404)
        return Response(data, media_type="image/jpeg")

    async def answer_verb(request: Request) -> Response:
        try:
            desk = find_desk(desks, request.path_params["video"])
            given = read_arguments(request, await read_body(request))
            told = await run_in_threadpool(run_verb, desk, request.path_params["verb"], given)
        except InputError as error:
            return answer_error(str(error))
        return answer_json(told)

    return GuardedApp(
        Starlette(
            routes=[
                Route("/", show_page),
                Route("/page/{name}", give_page_file),
                Route("/api", show_reference),
                Route("/openapi.json", give_openapi),
                Route("/videos", list_videos),
                Route("/videos/{video:int}/frames/{frame:int}.jpg", give_frame),
                Route("/videos/{video:int}/{verb}", answer_verb, methods=["POST"]),
            ]
        ),
        gate,
    )


def find_desk(desks: Sequence[Desk], number: int) -> Desk:
    """The open video of a number. Raises InputError where there is none."""
    if number >= len(desks):
        raise InputError(f"request: no video {number}; there are {len(desks)}, counted from 0")
    return desks[number]


def read_frame(desk: Desk, frame: int, side: int) -> bytes:
    """A frame of an open video as JPEG. Raises InputError where there is none."""
    if desk.frames is None:
        raise InputError(f"{desk.name}: the video is not given")
    check_frame(desk, frame)
    return desk.frames.read_jpeg(frame, side)


async def read_body(request: Request) -> bytes:
    """The body of a request. Raises InputError where it is too large."""
    data = b""
    async for piece in request.stream():
        data += piece
        if len(data) > MOST_BODY:
            raise InputError(f"request: larger than {MOST_BODY:,} bytes")
    return data


def read_arguments(request: Request, data: bytes) -> Mapping[str, Any]:
    """The arguments in the body of a request. Raises InputError where there are none."""
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise InputError("request: send application/json")
    try:
        given = json.loads(data)
    except (ValueError, RecursionError):
        raise InputError("request: no JSON") from None
    if not isinstance(given, dict):
        raise InputError(f"request: send an object with named arguments, not {quote_value(given)}")
    return given


def answer_json(value: Any, status: int = 200) -> Response:
    """A value as JSON; in ASCII, for names may hold halves of characters."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return Response(text, status_code=status, media_type="application/json")


def answer_error(sentence: str, status: int = 400) -> Response:
    """A mistake as JSON, with its status."""
    return answer_json({"error": sentence}, status)


def read_page_file(name: str) -> bytes:
    """A file of the page, which is in the package."""
    return (files("masklet.view") / "page" / name).read_bytes()
