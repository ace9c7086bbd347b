"""`vaewatch review`: the page on this machine, for people without Airflow.

Belongs here: a token, a cookie, a socket. Does not: the page (app.py). The token is in the address once; the
answer replaces it by a cookie that no script can read.
"""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import secrets
import socket
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI, HTTPException, Request
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from pipeline.errors import ConfigError
from pipeline.installation import Installation
from pipeline.review.filling import catch_up
from pipeline.web.access import Identify, Reviewer
from pipeline.web.app import create_app

COOKIE = "vaewatch_review"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
EVERY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # every address → the one to open here


def serve(
    host: str,
    port: int,
    by: str,
    *,
    names: Sequence[str] = (),
    only: Sequence[str] = (),
    say: Callable[[str], None],
) -> None:
    """Serve until interrupted.

    Args:
        names: what other machines call this one, beside its addresses and its host name.
        only: the datasets to serve; empty for all.

    Raises:
        ConfigError: the address is taken, or does not belong to this machine; or there is no such dataset.
    """
    import uvicorn

    here = Installation()
    for dataset in [here.dataset(name) for name in only] or here.datasets().values():
        catch_up(here, dataset, say=lambda line: say(f"  {line}"))
    listening = _listen(host, port)
    port, token = listening.getsockname()[1], secrets.token_urlsafe(24)
    say(f"review page, as {by}: {_address(EVERY.get(host, host), port, token)}")
    hosts = [host, *names, *LOOPBACK]
    if host not in LOOPBACK:
        hosts.append(socket.gethostname())
        elsewhere = names[0] if names else _outward() if host in EVERY else host
        say(f"  from other machines: {_address(elsewhere, port, token)}")
        say(f"  {host} can be reached from other machines, and what is said travels without encryption")
    say("  stop with Ctrl-C")
    app = alone(here, by, token, hosts=hosts, any_address=host in EVERY, only=only)
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])


def alone(
    here: Installation,
    by: str,
    token: str,
    *,
    hosts: Sequence[str],
    any_address: bool = False,
    only: Sequence[str] = (),
) -> FastAPI:
    """Return the page for one reviewer, who is known by a token.

    Args:
        hosts: names that a browser may know this server by; any other name may be one that somebody pointed
            at it.
        any_address: accept any IP address, too: only a name can be pointed at somebody else's machine.
        only: datasets that the token opens; empty for all.
    """
    session = hmac.new(token.encode(), b"session", sha256).hexdigest()
    app = create_app(
        here, identify=_by_token(by, token, session, frozenset(only) or None), secret=token.encode()
    )
    app.add_middleware(_KnownHost, allowed_hosts=[*map(_bracketed, hosts)], any_address=any_address)

    @app.middleware("http")
    async def let_in(request: Request, answer: Callable[[Request], Any]) -> Response:
        given = request.query_params.get("token")
        if request.method != "GET" or given is None or not _same(given, token):
            response: Response = await answer(request)
            return response
        clean = request.url.remove_query_params("token")
        back = RedirectResponse(f"{clean.path}?{clean.query}" if clean.query else clean.path, 303)
        back.set_cookie(cookie_of(request), session, httponly=True, samesite="strict", path="/")
        return back

    return app


class _KnownHost(TrustedHostMiddleware):
    """Refuses a host name that is none of ours."""

    def __init__(self, app: ASGIApp, allowed_hosts: Sequence[str], *, any_address: bool) -> None:
        super().__init__(app, allowed_hosts, www_redirect=False)
        self._any_address = any_address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_http = scope["type"] == "http"
        if is_http and self._any_address and _is_address(HTTPConnection(scope).headers.get("host", "")):
            return await self.app(scope, receive, send)
        return await super().__call__(scope, receive, send)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return False
    return True


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _address(host: str, port: int, token: str) -> str:
    return f"http://{_bracketed(host)}:{port}/?token={token}"


def _outward() -> str:
    """Return the address of this machine that others are likely to reach, or without a network its name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            asked.connect(("192.0.2.1", 9))  # reserved for examples; a datagram socket sends nothing here
        except OSError:
            return socket.gethostname()
        return str(asked.getsockname()[0])


def _by_token(by: str, token: str, session: str, only: frozenset[str] | None) -> Identify:
    async def identify(request: Request) -> Reviewer:
        if _same(request.cookies.get(cookie_of(request), ""), session):
            return Reviewer(by, may_write=True, reads=only)
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and _same(given, token):
            return Reviewer(by, may_write=True, is_ambient=False, reads=only)
        raise HTTPException(401, "open the address that `vaewatch review` printed: it lets this browser in")

    identify.__annotations__ = {"request": Request}
    return identify


def cookie_of(request: Request) -> str:
    """Return a cookie name with the port: cookies ignore it, and two pages on one machine would collide."""
    return f"{COOKIE}_{request.url.port or 80}"


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen()  # whoever opens the address at once waits, and is not refused
    except OSError as fault:
        listening.close()
        raise ConfigError(
            f"{host}:{port}: {fault.strerror}; choose another --port, 0 for any that is free"
        ) from fault
    return listening
