"""The review page inside Airflow's: under its login, with its permissions.

Belongs here: who is asking, by Airflow's word, and where the page hangs. Does not: the page (pipeline/review/web).

Airflow mounts a plugin's application without asking anybody who they are: the guard of the page does, with what is said
here. Who may read Dags may read, who may edit Dags may write. Every Airflow process imports plugins; the page is built
by the one that is asked for it.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from airflow.plugins_manager import AirflowPlugin

if TYPE_CHECKING:
    from fastapi import FastAPI

PREFIX = "/review"
NAME = "Review"


def build() -> FastAPI:
    """The page over the installation that the environment describes."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.core_api.security import GetUserDep
    from fastapi import HTTPException, Request
    from fastapi.security.utils import get_authorization_scheme_param

    from pipeline.installation import Installation
    from pipeline.review.web.access import Reviewer
    from pipeline.review.web.app import create_app

    async def identify(request: Any, user: Any) -> Reviewer:
        manager = get_auth_manager()
        if not await asyncio.to_thread(_may, manager, "GET", user):
            raise HTTPException(403, "your role may not read Dags: ask for one that may")
        writes = await asyncio.to_thread(_may, manager, "PUT", user)
        # As Airflow does: with any other scheme, or nothing after it, the cookie says who asks
        scheme, given = get_authorization_scheme_param(request.headers.get("authorization"))
        return Reviewer(user.get_name(), writes, is_ambient=not (scheme.lower() == "bearer" and given))

    # Airflow's names exist here only, so FastAPI is handed the annotations rather than left to look for them
    identify.__annotations__ = {"request": Request, "user": GetUserDep}
    return create_app(Installation(), identify=identify, secret=_secret())


def _may(manager: Any, method: str, user: Any) -> bool:
    return bool(manager.is_authorized_dag(method=method, user=user))


def _secret() -> bytes:
    """The same in every API server of a deployment, as the secret that signs its tokens is."""
    from airflow.configuration import conf

    known = conf.get("api_auth", "jwt_secret", fallback="") or secrets.token_hex()
    return hmac.new(known.encode(), b"vaewatch review", sha256).digest()


class _WhenAsked:
    """An ASGI application that is built at the first request."""

    def __init__(self) -> None:
        self._app: FastAPI | None = None
        self._building = asyncio.Lock()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async with self._building:
            if self._app is None:
                self._app = await asyncio.to_thread(build)
        await self._app(scope, receive, send)


class ReviewPlugin(AirflowPlugin):
    """What Airflow is told: an application, and an item in its menu that shows it."""

    name = "vaewatch_review"
    fastapi_apps = [  # noqa: RUF012  # as the base class declares it
        {"app": _WhenAsked(), "url_prefix": PREFIX, "name": NAME}
    ]
    external_views = [  # noqa: RUF012
        {
            "name": NAME,
            "href": f"{PREFIX}/",  # without the slash Airflow's own page answers
            "destination": "nav",
            "url_route": "vaewatch-review",
            "nav_top_level": True,
        }
    ]
