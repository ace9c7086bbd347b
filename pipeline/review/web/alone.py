"""`vaewatch review`: the page on this machine, for people without Airflow.

Belongs here: a token, a cookie, a socket. Does not: the page (app.py).
The token stands in the address once; the answer puts a cookie in its place, which no script can read.
"""

from __future__ import annotations

import contextlib
import hmac
import secrets
import socket
from collections.abc import Callable
from hashlib import sha256
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import RedirectResponse, Response

from pipeline.errors import ConfigError
from pipeline.installation import Installation
from pipeline.review.filling import catch_up
from pipeline.review.web.access import Identify, Reviewer
from pipeline.review.web.app import create_app

COOKIE = "vaewatch_review"
LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")


def serve(host: str, port: int, by: str, *, say: Callable[[str], None]) -> None:
    """Serve until interrupted.

    Raises:
        ConfigError: the address is taken, or is none of this machine's.
    """
    import uvicorn

    here = Installation()
    for dataset in here.datasets().values():
        catch_up(here, dataset, say=lambda line: say(f"  {line}"))
    listening = _listen(host, port)
    port, token = listening.getsockname()[1], secrets.token_urlsafe(24)
    shown = f"[{host}]" if ":" in host else host
    say(f"review page, as {by}: http://{shown}:{port}/?token={token}")
    if host not in LOOPBACK:
        say(f"  {host} can be reached from other machines, and what is said travels without encryption")
    say("  stop with Ctrl-C")
    every_address = host in {"0.0.0.0", "::"}  # noqa: S104  # asked for: then a browser may know it by any name
    app = alone(here, by, token, hosts=["*"] if every_address else [host, *LOOPBACK])
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])


def alone(here: Installation, by: str, token: str, *, hosts: list[str]) -> FastAPI:
    """The page for one reviewer, who is known by a token.

    Args:
        hosts: names that a browser may know this server by; any other one is a name that somebody pointed at it.
    """
    session = hmac.new(token.encode(), b"session", sha256).hexdigest()
    app = create_app(here, identify=_by_token(by, token, session), secret=token.encode())
    app.add_middleware(
        TrustedHostMiddleware, allowed_hosts=[host for host in hosts if ":" not in host] + ["[::1]"]
    )

    @app.middleware("http")
    async def let_in(request: Request, answer: Callable[[Request], Any]) -> Response:
        given = request.query_params.get("token")
        if request.method != "GET" or given is None or not _same(given, token):
            response: Response = await answer(request)
            return response
        clean = request.url.remove_query_params("token")
        back = RedirectResponse(f"{clean.path}?{clean.query}" if clean.query else clean.path, 303)
        back.set_cookie(COOKIE, session, httponly=True, samesite="strict", path="/")
        return back

    return app


def _by_token(by: str, token: str, session: str) -> Identify:
    async def identify(request: Request) -> Reviewer:
        if _same(request.cookies.get(COOKIE, ""), session):
            return Reviewer(by, may_write=True)
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and _same(given, token):
            return Reviewer(by, may_write=True, is_ambient=False)
        raise HTTPException(401, "open the address that `vaewatch review` printed: it lets this browser in")

    identify.__annotations__ = {"request": Request}
    return identify


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as fault:
        listening.close()
        raise ConfigError(
            f"{host}:{port}: {fault.strerror}; choose another --port, 0 for any that is free"
        ) from fault
    return listening
