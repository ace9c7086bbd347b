"""The review page where most people will meet it: in Airflow's own pages, behind its login, in a real
browser.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.airflow_api import AirflowApi
from infra.layout import Layout, write_private
from infra.processes import Child
from pipeline.installation import Installation
from pipeline.review import queue, record
from pipeline.review.filters import Filters
from tests.browser.conftest import fill
from tests.browser.page import Page

pytestmark = [  # a minute: Airflow's database is made, and its server started
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
PASSWORDS = {"uma": "of uma alone", "vera": "of vera alone"}
STARTS = 180  # seconds


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A filled queue, as the pages that stand alone have it."""
    root = tmp_path_factory.mktemp("airflow")
    installation = Installation(Layout(root / "home", root / "datasets").settings)
    fill(installation)
    yield installation
    installation.close()


@pytest.fixture(scope="module")
def airflow(here: Installation) -> Iterator[str]:
    """Airflow's API server, which serves its pages; uma may edit Dags, vera may look at them."""
    layout = Layout(here.settings.home, here.settings.datasets)
    layout.prepare()
    write_private(layout.password_file, json.dumps(PASSWORDS))
    ports = layout.choose_ports()
    roles = {"AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "uma:user,vera:viewer"}
    environment, command = layout.environment(ports) | roles, layout.commands(ports)["api-server"]
    subprocess.run([command[0], "db", "migrate"], env=environment, check=True, capture_output=True)
    server = Child("api-server", command, environment, layout.logs / "api-server.log")
    server.start()
    try:
        url, began = layout.urls(ports)["airflow"], time.monotonic()
        with AirflowApi(url, "uma", PASSWORDS["uma"]) as api:
            while not api.is_up():
                log = layout.logs / "api-server.log"
                assert time.monotonic() - began < STARTS, log.read_text(errors="replace")[-4000:]
                time.sleep(0.2)
        yield url
    finally:
        server.ask_to_stop()
        server.stop(grace=20)


@pytest.fixture
def sign_in(airflow: str, open_browser: Callable[..., Any]) -> Callable[..., Page]:
    """Opens Airflow as somebody, goes to the review page by the menu, and looks into its frame."""

    def enter(name: str, **browser: Any) -> Page:
        page = Page(open_browser(**browser), f"{airflow}/")
        (user,) = page.until(lambda: page.all("input[name=username]"))
        user.send_keys(name)
        page.all("input[name=password]")[0].send_keys(PASSWORDS[name])
        page.all("button[type=submit]")[0].click()
        page.until(lambda: page.all("a[href='/plugin/vaewatch-review']"))[0].click()
        frame = page.until(lambda: page.all("iframe"))[0]
        page.browser.switch_to.frame(frame)
        page.until(lambda: page.all("h1"))
        return page

    return enter


def states(here: Installation) -> dict[str, int]:
    return queue.counts(here.ledger, Filters())["state"]


def test_a_stranger_is_sent_to_the_login_and_sees_nothing(
    airflow: str, here: Installation, open_browser: Callable[..., Any]
) -> None:
    """Neither by the menu's address, nor by that of the page inside, nor by the API's."""
    page = Page(open_browser(), f"{airflow}/?")
    page.go("/plugin/vaewatch-review")
    page.until(lambda: "/auth/login" in page.browser.current_url)
    page.go("/review/")
    assert "Not let in" in page.text("h1")
    assert "key-0" not in page.browser.page_source
    name = here_id(here)
    with httpx.Client(base_url=f"{airflow}/review", trust_env=False) as stranger:
        for path in ("/", "/overview", f"/record/{name}", "/api/records", "/api/openapi.json"):
            assert stranger.get(path).status_code == 401
        said = {"anomaly_ids": [name], "verdict": "normal"}
        assert stranger.post("/api/verdicts", json=said).status_code == 401
    assert set(states(here)) == {"open"}


def here_id(here: Installation) -> str:
    (row,) = queue.page(here.ledger, Filters(search="key-0")).rows
    name: str = row.anomaly_id
    return name


def test_a_user_filters_judges_from_the_keyboard_and_takes_it_back(
    sign_in: Callable[..., Page], here: Installation, tmp_path: Path
) -> None:
    """In the frame, from the first key on: the verdict carries Airflow's name of who signed in."""
    page = sign_in("uma")
    assert page.text("h1") == "9 open"
    assert page.text(".who .name") == "uma"
    (column,) = [link for link in page.all(".facet a") if link.text.split()[:1] == ["amount"]]
    column.click()
    page.until(lambda: page.text("h1") == "7 open")
    page.press("j", "1")
    page.until(lambda: "anomaly: key-0" in page.text("#toast"))
    assert states(here) == {"open": 8, "anomaly": 1}
    (said,) = record.one(here.ledger, here_id(here)).verdicts
    assert (said.by, said.verdict) == ("uma", "anomaly")
    page.press("u")
    page.until(lambda: "withdrawn: anomaly on key-0 of payments" in page.text("#toast"))
    assert states(here) == {"open": 9}
    page.press("\ue007")  # Enter
    page.until(lambda: page.all("article.record"))
    assert page.all(".saying .say")
    page.browser.switch_to.default_content()
    page.browser.save_screenshot(str(tmp_path / "record.png"))


def turn_to(page: Page, name: str, heading: str) -> None:
    """To another page of the review by its own menu, as the frame has no address bar."""
    next(link for link in page.all("nav a") if link.text == name).click()
    page.until(lambda: page.text("h1") == heading)


def test_a_group_is_judged_whole_seen_in_the_overview_and_undone(
    sign_in: Callable[..., Page], here: Installation
) -> None:
    """Seven records, one press, in the name that Airflow knows; the overview follows, there and back."""
    page = sign_in("uma")
    turn_to(page, "Groups", "Open records that are odd alike")
    assert page.text(".group .count") == "7 records"
    page.press("j", "1")
    page.until(lambda: "anomaly: 7 records" in page.text("#toast"))
    assert states(here) == {"open": 2, "anomaly": 7}
    assert {said.by for said in record.one(here.ledger, here_id(here)).verdicts} == {"uma"}
    turn_to(page, "Overview", "Overview")
    assert "Backlog 2 " in page.text(".tiles")
    assert "of 7 flagged by version 3 and judged" in page.text(".tiles")
    page.press("u")  # it was not said on this page: asked for once more
    page.until(lambda: "anomaly on 7 records of payments" in page.text("#toast"))
    page.hears_again()
    page.press("u")
    page.until(lambda: "Backlog 9 " in page.text(".tiles"))
    assert states(here) == {"open": 9}


def test_a_rule_says_what_it_would_hide_before_it_is_saved_and_can_be_ended(
    sign_in: Callable[..., Page], here: Installation
) -> None:
    """Drafted from a record, looked at, saved; the queue is shorter by as many, and whole again after."""
    page = sign_in("uma")
    page.press("j", "\ue007")  # Enter
    page.until(lambda: page.text("h1") == "key-0")
    next(link for link in page.all(".alike a") if "rule" in link.text).click()
    page.until(lambda: "would have hidden 7 records" in page.text(".preview"))
    assert "none of them was judged: look at a few first" in page.text(".preview")
    assert set(states(here)) == {"open"}
    page.all("[name=note]")[0].send_keys("the sale")
    page.all("button.primary")[0].click()
    page.until(lambda: "rule 1 holds until" in page.text("#toast"))
    turn_to(page, "Queue", "2 open")
    assert queue.total(here.ledger, Filters(suppressed=True)) == 7
    turn_to(page, "Rules", "Suppression rules")
    next(button for button in page.all("td button") if button.text == "end").click()
    page.until(lambda: " by uma" in page.text("tbody"))
    turn_to(page, "Queue", "9 open")


def test_a_viewer_reads_and_is_refused_writing(sign_in: Callable[..., Page], here: Installation) -> None:
    """By the page, which offers nothing to write with, and by the server, whatever the page offers."""
    page = sign_in("vera", width=390, height=844)
    assert page.text("h1") == "9 open"
    assert "reads only" in page.text(".who")
    assert page.all(".say") == []
    page.press("j", "1")
    page.until(lambda: "your role may only read here" in page.text("#toast"))
    refused = page.browser.execute_async_script(
        """const [name, done] = arguments, root = document.documentElement;
        fetch("/review/api/verdicts", {method: "POST", body: JSON.stringify({anomaly_ids: [name], verdict: "normal"}),
            headers: {"Content-Type": "application/json", "X-CSRF-Token": root.dataset.csrf}}).then(a => done(a.status));""",
        here_id(here),
    )
    assert refused == 403
    assert set(states(here)) == {"open"}
