"""The review page inside Airflow's: under its login, with its permissions.

Belongs here: who is asking, according to Airflow, and where the page is mounted. Does not: the page
(pipeline/web/).

Airflow mounts a plugin's application without authenticating anybody: the page's guard does, with what is said
here. Who may read a dataset's Dag `score` may read its records, who may edit that Dag may judge them. Every
Airflow process imports plugins; the page is built only in the process that is asked for it.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Collection
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from airflow.plugins_manager import AirflowPlugin

if TYPE_CHECKING:
    from fastapi import FastAPI

PREFIX = "/review"
NAME = "Review"
FILLS = "score"  # the Dag of a dataset that fills the queue; its users may use the queue


def build() -> FastAPI:
    """Build the page over the installation that the environment describes."""
    from airflow.api_fastapi.core_api.security import GetUserDep
    from fastapi import HTTPException, Request
    from fastapi.security.utils import get_authorization_scheme_param

    from pipeline.installation import Installation
    from pipeline.review import queue
    from pipeline.web.access import Reviewer
    from pipeline.web.app import create_app

    here = Installation()

    async def identify(request: Any, user: Any) -> Reviewer:
        held = await asyncio.to_thread(lambda: queue.datasets(here.ledger).union(here.ledger.datasets()))
        reads = await asyncio.to_thread(_allowed, "GET", user, held)
        if reads is None:
            raise HTTPException(
                403, "your role may not read the Dags of any dataset here: ask for one that may"
            )
        writes = await asyncio.to_thread(_allowed, "PUT", user, reads)
        # As Airflow does: with any other scheme, or nothing after it, the cookie says who asks
        scheme, given = get_authorization_scheme_param(request.headers.get("authorization"))
        is_ambient = not (scheme.lower() == "bearer" and given)
        return Reviewer(
            user.get_name(), writes is not None, is_ambient, reads=reads, writes=writes or frozenset()
        )

    # Airflow's names exist only here, so FastAPI is given the annotations instead of looking them up
    identify.__annotations__ = {"request": Request, "user": GetUserDep}
    return create_app(here, identify=identify, secret=_secret())


def _allowed(method: str, user: Any, datasets: Collection[str]) -> frozenset[str] | None:
    """Return the datasets whose queue-filling Dag a user may read (GET) or edit (PUT), or None.

    Without any dataset yet, the permission on Dags in general decides: an empty set, or None.
    """
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.models.dag import DagModel

    manager: Any = get_auth_manager()
    if not datasets:
        return frozenset() if manager.is_authorized_dag(method=method, user=user) else None
    names = {f"{dataset}.{FILLS}": dataset for dataset in datasets}
    teams, found = DagModel.get_dag_id_to_team_name_mapping([*names]), set[str]()
    for team in {teams.get(dag_id) for dag_id in names}:
        mine = {dag_id for dag_id in names if teams.get(dag_id) == team}
        found |= manager.filter_authorized_dag_ids(dag_ids=mine, user=user, method=method, team_name=team)
    return frozenset(names[dag_id] for dag_id in found) or None


def _secret() -> bytes:
    """Return a secret that all API servers of a deployment derive alike, from the one that signs tokens."""
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
    """What Airflow is given: an application, and an item in its menu that shows it."""

    name = "vaewatch_review"
    fastapi_apps = [  # noqa: RUF012  # as the base class declares it
        {"app": _WhenAsked(), "url_prefix": PREFIX, "name": NAME}
    ]
    external_views = [  # noqa: RUF012
        {
            "name": NAME,
            "href": f"{PREFIX}/",  # without the slash, Airflow's own page answers
            "destination": "nav",
            "url_route": "vaewatch-review",
            "nav_top_level": True,
        }
    ]
