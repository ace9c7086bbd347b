"""Who asks, what they may do, and whether the request comes from our own page.

Belongs here: one guard that every route passes, by method: to read, a reviewer must be allowed to read; to
change something, to write, and only our page can be the sender. Does not: how a reviewer is known, which is
up to the host: a token (alone.py) or Airflow's login (dags/review_plugin.py).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, HTTPException, Request
from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
MOST_SENT = 1_000_000  # bytes of a request's body: ten thousand ids, or a note
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Reviewer:
    """Somebody who is known to the host.

    Attributes:
        may_write: whether they may write at all.
        is_ambient: known by a cookie, which a browser also sends for strangers' pages.
        reads, writes: datasets; None for all.
    """

    name: str
    may_write: bool
    is_ambient: bool = True
    reads: frozenset[str] | None = None
    writes: frozenset[str] | None = None

    def may_read(self, dataset: str) -> bool:
        return self.reads is None or dataset in self.reads

    def may_judge(self, dataset: str) -> bool:
        return self.may_write and self.may_read(dataset) and (self.writes is None or dataset in self.writes)


Identify = Callable[..., Awaitable[Reviewer]]


def guard(identify: Identify, secret: bytes) -> Callable[..., Awaitable[None]]:
    """Return the dependency of every route.

    Args:
        identify: a dependency of the host that returns the reviewer; raises 401 for a stranger, 403 for one
            who may not read.
    """

    async def passes(request: Request, reviewer: Annotated[Reviewer, Depends(identify)]) -> None:
        request.state.reviewer = reviewer
        request.state.csrf = csrf_token(secret, reviewer)
        if request.method in SAFE:
            return
        if not reviewer.may_write:
            raise HTTPException(403, "you may read here, not write: ask for a role that may")
        if not is_same_origin(request):
            raise HTTPException(403, "this request comes from another site")
        if reviewer.is_ambient and not await _carries(request, request.state.csrf):
            raise HTTPException(403, "the page is out of date: load it again")

    passes.__annotations__ = {"request": Request, "reviewer": Annotated[Reviewer, Depends(identify)]}
    return passes


def known(request: Request) -> Reviewer:
    """Return the reviewer that the guard let through."""
    reviewer: Reviewer = request.state.reviewer
    return reviewer


Known = Annotated[Reviewer, Depends(known)]


def csrf_token(secret: bytes, reviewer: Reviewer) -> str:
    """Return what a form of ours carries and a stranger's page cannot know."""
    return hmac.new(secret, f"csrf\x1f{reviewer.name}".encode(), hashlib.sha256).hexdigest()


def is_same_origin(request: Request) -> bool:
    """Return False if a browser says that another site's page sent this; other programs say nothing."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host", "")


async def _carries(request: Request, token: str) -> bool:
    given = request.headers.get("x-csrf-token")
    if given is None and request.headers.get("content-type", "").startswith(
        "application/x-www-form-urlencoded"
    ):
        given = (await request.form()).get("csrf")  # type: ignore[assignment] # no files are accepted
    return isinstance(given, str) and hmac.compare_digest(given.encode(), token.encode())


class Shell:
    """Surrounds every answer with headers that keep a stranger's text from running.

    It refuses a body that is too long, and an address with a NUL.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        if (refusal := _holds_nul(scope) or _too_long(scope)) is not None:
            return await refusal(scope, receive, send)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers: Any = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        return await self.app(scope, receive, with_headers)


def _holds_nul(scope: Scope) -> PlainTextResponse | None:
    """Refuse an address with a NUL: no text of ours holds one, and PostgreSQL refuses to look for it."""
    found = "\0" in scope["path"] or b"%00" in scope["query_string"] or b"\0" in scope["query_string"]
    return PlainTextResponse("the address holds a NUL character: leave it out", 400) if found else None


def _too_long(scope: Scope) -> PlainTextResponse | None:
    headers = dict(scope["headers"])
    if b"transfer-encoding" in headers:
        return PlainTextResponse("the request must say how long its body is", 411)
    length = headers.get(b"content-length", b"0")
    return PlainTextResponse("too long", 413) if not length.isdigit() or int(length) > MOST_SENT else None
