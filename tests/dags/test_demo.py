"""`make demo` while Airflow trains: it shows what it is doing, on a terminal and without one."""

from __future__ import annotations

import io
import re
import shlex
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from rich.console import Console
from rich.progress import Progress

from infra import demo, demo_feed, demo_outcome
from infra.airflow_api import AirflowApi

TRAIN, RUN = "payments.train", "manual__1"
NIGHT: list[
    tuple[str, str, list[str]]
] = [  # of the run: its state, the task that runs, what its step has said
    ("queued", "", []),
    ("running", "train", []),
    ("running", "train", ["trained 500 of 2500 steps"]),
    ("running", "train", ["trained 500 of 2500 steps"]),
    ("running", "evaluate", ["evaluating version 1 against [nothing]"]),
    ("success", "", []),
]


def answers(night: Iterator[tuple[str, str, list[str]]]) -> httpx.MockTransport:
    """An Airflow in which every look at the run finds it a step further."""
    now: tuple[str, str, list[str]] = ("queued", "", [])

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal now
        state, task, said = now
        path = request.url.path
        body: dict[str, Any]
        if path.endswith("/auth/token"):
            body = {"access_token": "t"}
        elif path.endswith("/taskInstances"):
            tasks = [
                {"task_id": one, "state": "running" if one == task else None, "try_number": 2}
                for one in ("train", "evaluate")
            ]
            body = {"task_instances": tasks, "total_entries": 2}
        elif path.endswith(f"/taskInstances/{task}/logs/2"):
            ours = [{"event": event, "logger": "vaewatch"} for event in said]
            body = {
                "content": [
                    {"event": "::group::"},
                    *ours,
                    {"event": "Pushing xcom", "logger": "task"},
                    "plain",
                ]
            }
        else:
            state = (now := next(night))[0]
            body = {"state": state}
        return httpx.Response(200, json=body)

    return httpx.MockTransport(answer)


@pytest.fixture
def api() -> Iterator[AirflowApi]:
    with AirflowApi("http://airflow", "admin", "secret") as made:
        made._http = httpx.Client(base_url="http://airflow", transport=answers(iter(NIGHT)))
        yield made


def followed(api: AirflowApi, monkeypatch: pytest.MonkeyPatch, *, terminal: bool) -> str:
    """What is written while a run is followed to its end."""
    written = io.StringIO()
    monkeypatch.setattr(
        demo, "console", Console(file=written, force_terminal=terminal, width=140, highlight=False)
    )
    monkeypatch.setattr(demo, "LOOK_AGAIN", 0.2)
    assert demo._follow(api, TRAIN, RUN) == "success"
    return written.getvalue()


def test_without_a_terminal_each_thing_that_is_done_is_a_line_once(
    api: AirflowApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log of CI shows that it is alive, and has no spinner in it."""
    assert followed(api, monkeypatch, terminal=False).splitlines() == [
        "  payments.train waits for Airflow",
        "  train: starting",
        "  train: trained 500 of 2500 steps",
        "  evaluate: evaluating version 1 against [nothing]",
    ]


def test_on_a_terminal_one_line_tells_what_is_done_and_for_how_long(
    api: AirflowApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is gone when the run has ended."""
    shown = followed(api, monkeypatch, terminal=True)
    assert "payments.train waits for Airflow" in shown
    assert "train: trained 500 of 2500 steps" in shown
    assert "0:00:0" in shown
    assert shown.rstrip().endswith("\x1b[2K")


def test_the_bar_says_what_it_waits_for_until_the_first_batch_is_done(
    api: AirflowApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A count that stays at nought without a word looks like a hang."""
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=140, highlight=False)
    monkeypatch.setattr(demo, "LOOK_AGAIN", 0.2)
    counts = iter([0] * len(NIGHT) + [1, 2])
    with Progress(*demo.LANDING, console=console) as progress:
        bar = progress.add_task("landed", total=2)
        waits = partial(demo._waits_for, api, "payments.discover", RUN)
        demo._watch(progress, bar, "history: land → validate", lambda: next(counts), waits, lambda: "")
    shown = written.getvalue()
    told = ("landed; payments.discover looks for them", "found; Airflow starts", "history: land → validate")
    assert [text in shown for text in told] == [True] * 3
    assert sorted(told, key=shown.index) == list(told)
    assert "2/2" in shown


@pytest.mark.parametrize(("quiet", "n_lines"), [(1e9, 3), (0.0, 7)])
def test_without_a_terminal_a_log_says_each_stage_and_now_and_then_how_far_it_is(
    api: AirflowApi, monkeypatch: pytest.MonkeyPatch, quiet: float, n_lines: int
) -> None:
    """A minute without a line looks like a hang, and so does one line again and again without its time."""
    written = io.StringIO()
    console = Console(file=written, width=140, highlight=False)
    monkeypatch.setattr(demo, "console", console)
    monkeypatch.setattr(demo, "LOOK_AGAIN", 0.0)
    monkeypatch.setattr(demo, "QUIET", quiet)
    counts = iter([0] * len(NIGHT) + [1, 2])
    with Progress(*demo.LANDING, console=console) as progress:
        bar = progress.add_task("landed", total=2)
        waits = partial(demo._waits_for, api, "payments.discover", RUN)
        demo._watch(progress, bar, "history: land → validate", lambda: next(counts), waits, lambda: "")
        told = written.getvalue().splitlines()
    assert list(dict.fromkeys(re.sub(r" \(\d+ s\)$", "", line) for line in told)) == [
        "  landed; payments.discover looks for them",
        "  found; Airflow starts a process for each step of each batch",
        "  history: land → validate 1/2",
    ]
    assert len(told) == n_lines
    assert sum(line.endswith(" s)") for line in told) == n_lines - 3
    assert "2/2" in written.getvalue()


def test_that_nothing_was_left_to_do_is_the_last_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Before the tables it would scroll away."""
    feed = demo.Feed("payments", tmp_path, (), ())
    here = SimpleNamespace(dataset=lambda _: None)
    monkeypatch.setattr("sys.argv", ["demo"])
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "console": Console(width=140, highlight=False),
        "sample_data": lambda _: (here, feed),
        "exported": lambda _: [],
        "_is_done": lambda *_: True,
        "_report": lambda *_: demo.console.print("tables"),
        "_left_running": lambda _: "nothing is left running",
    }.items():
        monkeypatch.setattr(demo, name, value)
    assert demo.main() == 0
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first == "tables"
    assert last == "Everything was done already: nothing landed since, nothing was changed."


def test_a_demo_with_a_home_of_its_own_says_once_what_makes_its_commands_mean_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Settings before one command alone are lost on the next one; the sample's need none."""
    monkeypatch.chdir(tmp_path)
    homes = tmp_path / "var", tmp_path / "my data" / "demo-feed"
    settings = [SimpleNamespace(home=home, datasets=home / "datasets") for home in homes]
    sample, own = (SimpleNamespace(settings=one) for one in settings)
    assert demo_outcome.exported(sample) == []
    (line,) = demo_outcome.exported(own)
    said = line.partition("export ")[2]
    assert shlex.split(said) == [f"VAEWATCH_HOME={homes[1]}", f"VAEWATCH_DATASETS={homes[1]}/datasets"]
    console = Console(file=io.StringIO(), width=80)
    demo_outcome.print_places(console, own, {"dataset": "feed", "tables": "t"})
    text = console.file.getvalue()
    assert text.count("VAEWATCH_HOME") == 1
    places = [text.index(part) for part in ("export", "vaewatch review ", "report feed", "review list feed")]
    assert places == sorted(places)


def test_folders_of_one_name_have_a_home_each(tmp_path: Path) -> None:
    """One folder's records must not be judged by another's contract, nor its results told as another's."""
    var, one, other = tmp_path / "var", tmp_path / "a" / "feed", tmp_path / "b" / "feed"
    first, second = (demo_feed.home_of(var, "feed", folder) for folder in (one, other))
    assert (first, second) == (var / "demo-feed", var / "demo-feed-2")
    for given in (var, first, second):  # the end of a demo says to set VAEWATCH_HOME to its home
        assert [demo_feed.home_of(given, "feed", folder) for folder in (one, other)] == [first, second]
