"""The review page as tests open it: by role, route by route."""

from __future__ import annotations

import re
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from pipeline.installation import Installation
from pipeline.web.access import Reviewer
from pipeline.web.app import create_app

from .review_data import SITE


def as_role(here: Installation, may_write: bool | None, **only: frozenset[str]) -> TestClient:
    """A browser whose host knows it as one who may write, only read, or (None) not even that; or of some
    datasets only.
    """

    async def identify(request: Request) -> Reviewer:
        if may_write is None:
            raise HTTPException(403, "no role")
        return Reviewer("vera", may_write=may_write, **only)

    identify.__annotations__ = {"request": Request}
    return TestClient(create_app(here, identify=identify, secret=b"s"), base_url=SITE)


def csrf(client: TestClient) -> str:
    """What a form of the page carries."""
    found = re.search(r'data-csrf="([0-9a-f]{64})"', client.get("/overview").text)
    assert found
    return found[1]


def every_route(app: FastAPI) -> list[tuple[str, str]]:
    """Method and path of every route of an application, with something in each place."""
    found = []
    for route in app.routes:
        assert isinstance(route, APIRoute), f"{route} passes no guard: a mount, or a route of the framework's"
        path = re.sub(r"\{\w+\}", "1", route.path)
        found += [(method, path) for method in sorted(route.methods - {"HEAD"})]
    assert len(found) > 20
    return found


def snapshot(here: Installation) -> list[Any]:
    """Everything that review ever writes."""
    with here.ledger.transaction() as connection:
        names = ("verdicts", "suppressions", "record_claims", "queue")
        return [connection.exec_driver_sql(f"SELECT * FROM {name} ORDER BY 1").all() for name in names]


def create_app_of(client: TestClient) -> FastAPI:
    """The application behind a browser."""
    assert isinstance(client.app, FastAPI)
    return client.app
