"""The review page under Airflow's login: every route, for a stranger, a viewer and a user; by header and by
cookie.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from dags import review_plugin

from .conftest import AIRFLOW_WARNINGS, REPOSITORY, DatasetFile

pytestmark = [
    *AIRFLOW_WARNINGS,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Airflow's API server, on its own code
    pytest.mark.filterwarnings("ignore:Field .*:UserWarning"),
]
SITE = "http://localhost"


@pytest.fixture
def page(dataset_file: DatasetFile, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """Airflow's API server, with our plugin as it finds it, and an installation with one record in the
    queue.
    """
    from airflow import plugins_manager
    from airflow.api_fastapi.app import create_app, purge_cached_app
    from airflow.utils import db

    from pipeline.installation import Installation

    dataset_file("payments")
    db.initdb()
    fill(Installation())
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "s" * 64)
    mounted = [
        {"app": review_plugin._WhenAsked(), "url_prefix": review_plugin.PREFIX, "name": review_plugin.NAME}
    ]
    monkeypatch.setattr(plugins_manager, "get_fastapi_plugins", lambda: (mounted, []))
    purge_cached_app()
    with TestClient(create_app(apps="core"), base_url=SITE) as client:
        yield client
    purge_cached_app()


def fill(here: Any) -> None:
    """One flagged record."""
    from tests.pipeline.review_data import put, row

    put(here.ledger, [row("k0")])


def token(role: str, name: str = "") -> str:
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    user: Any = SimpleAuthManagerUser(username=name or role.lower(), role=role)
    made: str = get_auth_manager().generate_jwt(user)
    return made


def routes() -> list[tuple[str, str]]:
    app = review_plugin.build()
    assert isinstance(app, FastAPI)
    found = [
        (method, review_plugin.PREFIX + re.sub(r"\{\w+\}", "1", route.path))
        for route in app.routes
        if isinstance(route, APIRoute)
        for method in route.methods - {"HEAD"}
    ]
    assert len(found) > 20
    return found


def csrf(page: TestClient, cookie: dict[str, str]) -> str:
    found = re.search(r'data-csrf="([0-9a-f]{64})"', page.get("/review/", headers=cookie).text)
    assert found
    return found[1]


def test_every_route_asks_airflow_who_it_is(page: TestClient) -> None:
    """A mounted application has no login of its own: one route that forgets it is open to the network."""
    viewer = {"cookie": f"_token={token('VIEWER')}", "sec-fetch-site": "same-origin"}
    viewer_csrf = {**viewer, "x-csrf-token": csrf(page, viewer)}
    for method, path in routes():
        assert page.request(method, path).status_code == 401, (method, path)
        refused = page.request(method, path, headers={"authorization": "Bearer wrong"})
        assert refused.status_code in {401, 403}, (method, path)
        answer = page.request(method, path, headers=viewer_csrf)
        assert (answer.status_code == 403) is (method != "GET"), (method, path, answer.status_code)
        strange = {"cookie": f"_token={token('USER')}", "origin": "http://evil.example"}
        if method != "GET":
            assert page.request(method, path, headers=strange).status_code == 403, (method, path)


def test_a_viewer_reads_and_a_user_writes_under_airflows_name(page: TestClient) -> None:
    """The page, its addresses under Airflow's, and a verdict that carries the name of who is logged in."""
    viewer = {"cookie": f"_token={token('VIEWER')}"}
    text = page.get("/review/", headers=viewer).text
    assert "k0" in text
    assert "reads only" in text
    links = re.findall(r'(?:href|src|action)="(/[^"]*)"', text)
    assert links
    assert all(link.startswith("/review/") for link in links)
    user = {"cookie": f"_token={token('USER')}", "sec-fetch-site": "same-origin"}
    anomaly_id = page.get("/review/api/records", headers=user).json()["records"][0]["anomaly_id"]
    form = {"csrf": csrf(page, user), "verdict": "anomaly", "anomaly_id": anomaly_id}
    answer = page.post("/review/verdicts", data=form, headers=user, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"][:9]) == (303, "/review/?")
    bearer = {"authorization": f"Bearer {token('USER')}"}
    said = {"anomaly_ids": [anomaly_id], "verdict": "normal"}
    assert page.post("/review/api/verdicts", json=said, headers=bearer).status_code == 200
    (first, second) = page.get(f"/review/api/records/{anomaly_id}", headers=viewer).json()["verdicts"]
    assert (first["by"], first["verdict"], second["verdict"]) == ("user", "anomaly", "normal")


@pytest.fixture
def per_dag(monkeypatch: pytest.MonkeyPatch) -> None:
    """Permissions of single Dags."""
    monkeypatch.setenv("AIRFLOW__CORE__AUTH_MANAGER", "tests.dags.per_dag.PerDag")


@pytest.mark.usefixtures("per_dag")
def test_a_queue_is_for_those_whose_dag_it_is(request: pytest.FixtureRequest) -> None:
    """Who may read a dataset's Dag reads its records, who may edit it judges them; of the others there is no
    trace.
    """
    from pipeline.installation import Installation
    from tests.pipeline.review_data import put, row

    page: TestClient = request.getfixturevalue("page")
    put(Installation().ledger, [row("o0", dataset="orders")])

    def seen(name: str) -> dict[str, str]:
        answer = page.get("/review/api/records", headers={"authorization": f"Bearer {token('USER', name)}"})
        assert answer.status_code == 200, answer.text
        return {one["dataset"]: one["anomaly_id"] for one in answer.json()["records"]}

    def judges(name: str, anomaly_id: str) -> int:
        said = {"anomaly_ids": [anomaly_id], "verdict": "normal"}
        bearer = {"authorization": f"Bearer {token('USER', name)}"}
        return page.post("/review/api/verdicts", json=said, headers=bearer).status_code

    both = seen("otto")
    assert set(both) == {"payments", "orders"}
    assert set(seen("pia")) == {"payments"}
    assert (judges("otto", both["orders"]), judges("otto", both["payments"])) == (200, 403)
    assert (judges("pia", both["payments"]), judges("pia", both["orders"])) == (200, 404)
    nobody = {"authorization": f"Bearer {token('USER', 'nell')}"}
    refused = page.get("/review/", headers=nobody)
    assert refused.status_code == 403
    assert "may not read the Dags of any dataset here" in refused.text


@pytest.mark.parametrize("authorization", ["Basic YW5uOmFubg==", "Bearer", "Bearer ", "x"])
def test_a_header_that_is_no_token_does_not_stand_in_for_the_pages_own(
    page: TestClient, authorization: str
) -> None:
    """Airflow then goes by the cookie, which a browser sends for strangers' pages, too."""
    cookie = {"cookie": f"_token={token('USER')}", "authorization": authorization}
    form = {"verdict": "anomaly", "anomaly_id": "1"}
    refused = page.post("/review/verdicts", data=form, headers=cookie)
    assert refused.status_code == 403
    assert "load it again" in refused.text
    known = {**cookie, "x-csrf-token": csrf(page, cookie)}
    assert page.post("/review/verdicts", data=form, headers=known).status_code == 404


def test_airflow_finds_the_plugin_and_its_processes_import_nothing_heavy() -> None:
    """Scheduler and tasks import plugins, too: none of them may pay for a page."""
    program = (
        "import sys; from dags.review_plugin import ReviewPlugin as P; "
        "print(P.external_views[0]['href'], [n for n in ('torch', 'fastapi.applications', 'pyarrow', 'pipeline.installation') if n in sys.modules and n not in before])"
    )
    prepared = f"import sys, airflow.plugins_manager; before = set(sys.modules); {program}"
    done = subprocess.run(
        [sys.executable, "-c", prepared], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert done.stdout.strip().splitlines()[-1] == "/review/ []"
    text = Path(REPOSITORY / "pyproject.toml").read_text()
    named = re.search(r'airflow\.plugins"\]\nvaewatch_review = "([^"]+)"', text)
    assert named
    assert EntryPoint("vaewatch_review", named[1], "airflow.plugins").load() is review_plugin.ReviewPlugin
