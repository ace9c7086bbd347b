"""What OpenLineage is told of a night: files, tables and model versions that link up, and nothing where
nobody listens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.utils import db

from pipeline.installation import Installation

from .test_runs import Land, Run, land  # noqa: F401  # land is a fixture

pytestmark = pytest.mark.filterwarnings("default")  # as the other runs in process

Told = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module", autouse=True)
def airflow_database() -> None:
    """Airflow's own tables, once."""
    db.initdb()


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    """The newest event of a task that names data, as a collector would get it."""
    pytest.importorskip(
        "airflow.providers.openlineage", reason="the extra `openlineage` is not installed: nothing is told"
    )
    from airflow.providers.openlineage.plugins.listener import get_openlineage_listener

    file = tmp_path / "events.jsonl"
    transport = {"type": "file", "log_file_path": str(file), "append": True}
    monkeypatch.setenv("AIRFLOW__OPENLINEAGE__TRANSPORT", json.dumps(transport))
    adapter = get_openlineage_listener().adapter
    adapter._client = None  # it keeps the transport that it was made with

    def newest(task: str) -> dict[str, Any]:
        events = [json.loads(line) for line in file.read_text().splitlines()]
        mine = [event for event in events if event["job"]["name"] == task]
        # the provider's own START and COMPLETE come where this process loaded its plugins after a transport
        # was set
        return [event for event in mine if event["inputs"] or event["outputs"]][-1]  # type: ignore[no-any-return]

    yield newest
    adapter._client = None


def places(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {f"{one['namespace']} {one['name']}": one for one in found}


def test_a_night_joins_from_files_to_flags(land: Land, told: Told, tmp_path: Path) -> None:  # noqa: F811
    """Whoever asks what a flag was made of, or what a broken delivery has reached, follows names that are the
    same in every event.
    """
    for day in (1, 2, 3):
        land(day)
    Run("orders.score", batch="day01..day03")
    Run("orders.train")
    Run("orders.score", batch="day03")
    validated, trained, scored = map(
        told, ("orders.score.validate", "orders.train.train", "orders.score.score")
    )

    (incoming,) = validated["inputs"]
    assert incoming["name"] == str(tmp_path / "incoming" / "orders")
    assert incoming["inputFacets"]["subset"]["inputCondition"]["locations"] == [
        str(tmp_path / "incoming" / "orders" / "day03.parquet")
    ]
    records, model = places(validated["outputs"]), places(trained["outputs"])
    assert set(records) == set(places(trained["inputs"]))
    assert {*records, *model} == set(places(scored["inputs"]))

    here = Installation()
    version, states = here.registry.version("orders", 1), here.ledger.current("orders")
    (learned,) = trained["inputs"]
    assert learned["inputFacets"]["subset"]["inputCondition"]["partitions"] == [
        {"dimensions": {"batch_id": name}, "identifier": states[name].fingerprint} for name in sorted(states)
    ]
    ((name, made),) = model.items()
    assert name.endswith("mlflow.db vaewatch.orders/1")
    assert made["facets"]["version"]["datasetVersion"] == "1"
    tags = {tag["key"]: tag["value"] for tag in made["facets"]["tags"]["tags"]}
    assert tags["data_fingerprint"] == version.tags["data_fingerprint"]
    assert tags["run_id"] == version.run_id

    (written,) = scored["outputs"]
    assert written["name"] == here.tables(here.dataset("orders")).uri("scores")
    assert written["outputFacets"]["outputStatistics"]["rowCount"] == states["day03"].n_accepted
    assert scored["run"]["facets"]["parent"]["job"]["name"] == "orders.score"


def test_a_batch_that_no_model_has_scored_has_no_scores(land: Land, told: Told) -> None:  # noqa: F811
    """Lineage must not say that something was written that was not; a refused batch's files are told all the
    same.
    """
    land(1)
    land(2, broken=True)
    Run("orders.score", batch="day01..day02")
    (records,) = told("orders.score.validate")["outputs"]
    condition = records["outputFacets"]["subset"]["outputCondition"]
    assert [one["dimensions"]["batch_id"] for one in condition["partitions"]] == ["day01"]
    (incoming,) = told("orders.score.validate")["inputs"]
    assert len(incoming["inputFacets"]["subset"]["inputCondition"]["locations"]) == 2
    with pytest.raises(IndexError):
        told("orders.score.score")


def test_where_nobody_asks_nothing_is_looked_up() -> None:
    """An installation without a collector pays nothing for it."""
    from dags.lineage import tell

    def facts(*_: Any) -> Any:
        raise AssertionError("looked up")

    tell(facts, "orders", "day01")
