"""The application: guard, pages, API, files, and how faults are reported.

Belongs here: putting it together. Does not: a route's work (pages.py, record_pages.py, forms.py, api.py).
"""

from __future__ import annotations

import hashlib
import mimetypes
from importlib.resources import files
from urllib.parse import quote

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as Unrouted
from starlette.responses import JSONResponse, Response

from pipeline.errors import ClaimedByAnother, ConfigError, NotReady, StorageFailed, VaewatchError
from pipeline.installation import Installation
from pipeline.web import api, forms, pages, record_pages, render, words
from pipeline.web.access import HEADERS, Identify, Shell, guard

ASSETS = {
    path.name: path.read_bytes()
    for path in files("pipeline.web").joinpath("assets").iterdir()
    if path.is_file()
}
STYLE = ASSETS["review.css"].decode()
ICON = f"data:image/svg+xml,{quote(ASSETS['mark.svg'])}"
STAMP = hashlib.sha256(b"".join(ASSETS[name] for name in sorted(ASSETS))).hexdigest()[:10]
STATUS = {NotReady: 404, ClaimedByAnother: 409, ConfigError: 422, StorageFailed: 503}


def create_app(here: Installation, *, identify: Identify, secret: bytes) -> FastAPI:
    """Return the review application over an installation.

    Args:
        identify: a dependency that knows the reviewer, see `access.guard`.
        secret: for the tokens in forms; the same in every process that serves the page.
    """
    app = FastAPI(
        title="vaewatch review",
        description="Flagged records, verdicts, and what they add up to.",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        dependencies=[Depends(guard(identify, secret))],
    )
    app.state.here, app.state.stamp, app.state.is_warm = here, STAMP, False
    app.include_router(pages.router)
    app.include_router(record_pages.router)
    app.include_router(forms.router)
    app.include_router(api.router, prefix="/api", tags=["review"])
    app.add_api_route("/assets/{name}", _asset, include_in_schema=False)
    app.add_api_route("/api/openapi.json", lambda: JSONResponse(app.openapi()), include_in_schema=False)
    app.add_exception_handler(VaewatchError, _told)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(Unrouted, _unrouted)
    app.add_exception_handler(RequestValidationError, _misread)
    app.add_middleware(Shell)
    return app


def _asset(name: str) -> Response:
    if name not in ASSETS:
        raise HTTPException(404, "no such file")
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    keep = {"Cache-Control": "private, max-age=31536000, immutable"}  # the address has a stamp of the content
    return Response(ASSETS[name], media_type=kind, headers=keep)


async def _told(request: Request, fault: Exception) -> Response:
    status = next((code for kind, code in STATUS.items() if isinstance(fault, kind)), 500)
    return _answer(request, status, str(fault))


async def _refused(request: Request, fault: Exception) -> Response:
    assert isinstance(fault, HTTPException)  # noqa: S101  # what it is registered for
    return _answer(request, fault.status_code, str(fault.detail))


async def _unrouted(request: Request, fault: Exception) -> Response:
    assert isinstance(fault, Unrouted)  # noqa: S101  # what it is registered for
    said = {404: "there is nothing at this address", 405: f"nothing here takes {request.method}"}
    return _answer(request, fault.status_code, said.get(fault.status_code, str(fault.detail)))


async def _misread(request: Request, fault: Exception) -> Response:
    assert isinstance(fault, RequestValidationError)  # noqa: S101  # what it is registered for
    return _answer(request, 422, "; ".join(words.misread(one) for one in fault.errors()))


def _answer(request: Request, status: int, message: str) -> Response:
    message = message[:2000]
    path = request.url.path.removeprefix(request.scope.get("root_path", ""))
    if path == "/api" or path.startswith("/api/"):
        return JSONResponse({"detail": message}, status, headers=HEADERS)
    is_known = getattr(request.state, "reviewer", None) is not None
    inside = {} if is_known else {"style": STYLE, "icon": ICON}
    return render.fault(request, status, message, **inside)
