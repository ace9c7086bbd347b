"""Who is challenger, in a real registry: which version is judged next, and whose judgement counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import count

import pytest

from pipeline.registry import ModelVersion, Registry
from pipeline.steps.challenger import candidate, settle

pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy:DeprecationWarning"
)  # MLflow's
PASSED, REFUSED, WAITS = {"decision": "promote"}, {"decision": "refuse"}, {"decision": "wait"}
DATASETS = count()
SERVES, NO = {"promoted_by": "ann", **PASSED}, {"rejected_by": "ann", **PASSED}


def version(number: int, *aliases: str, tags: dict[str, str] | None = None) -> ModelVersion:
    return ModelVersion("orders", number, "", "", aliases, tags or {}, datetime(2026, 1, 1, tzinfo=UTC), {})


@pytest.mark.parametrize(
    ("versions", "number"),
    [
        ([], None),
        ([version(1)], 1),
        ([version(1, "champion", tags=SERVES)], 1),
        ([version(1, "champion", tags=SERVES), version(2)], 2),
        ([version(1, "champion", tags=SERVES), version(2, tags=REFUSED)], 2),
        ([version(1, "champion", tags=SERVES), version(2, tags=NO)], 1),
        ([version(1, "champion", tags=SERVES), version(2, "challenger", tags=PASSED), version(3)], 3),
        ([version(1, "champion", tags=SERVES), version(2, "challenger", tags=PASSED), version(3, tags=NO)], 2),
        ([version(1, "champion", tags=SERVES), version(2, "challenger", tags=WAITS), version(3)], 2),
        ([version(2, "challenger", tags=PASSED), version(3, "champion", tags=SERVES)], 2),
        ([version(1, "champion", tags=SERVES), version(2, tags={**SERVES, "rolled_back_by": "ann"})], 1),
    ],
)  # fmt: skip
def test_the_newest_is_judged_unless_one_is_in_its_shadow(
    versions: Sequence[ModelVersion], number: int | None
) -> None:
    """What has served, or was rejected by a person, does not come back by itself."""
    found = candidate(versions)
    assert (found.version if found else None) == number


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    folder = tmp_path_factory.mktemp("place")
    made = Registry(f"sqlite:///{folder}/mlflow.db")
    made.prepare()
    return made


def add_versions(registry: Registry, dataset: str, tags: Mapping[int, dict[str, str]]) -> None:
    """Three versions, of which the first serves."""
    client = registry._connection.client
    client.create_registered_model(registry.name(dataset))
    for number in (1, 2, 3):
        client.create_model_version(registry.name(dataset), "file:///nowhere", tags=tags.get(number))
    registry.promote(dataset, 1, by="ann", reason="the first")


@pytest.mark.parametrize(
    ("standing", "judged", "holds", "words"),
    [
        (None, (3, PASSED), 3, ""),
        (None, (3, WAITS), 3, ""),
        (None, (3, REFUSED), None, ""),
        (None, (1, PASSED), None, ""),
        (None, (3, NO), None, ""),
        ((2, PASSED), (2, PASSED), 2, ""),
        ((2, WAITS), (2, REFUSED), None, ""),
        ((2, PASSED), (3, PASSED), 3, "it takes the place of version 2, which passed and waits for somebody's word"),
        ((2, PASSED), (3, WAITS), 2, "version 2 stays challenger: it passed and waits for somebody's word"),
        ((2, PASSED), (3, REFUSED), 2, "version 2 stays challenger: it passed and waits for somebody's word"),
        ((2, WAITS), (3, WAITS), 3, "it takes the place of version 2, which is in its shadow"),
        ((3, PASSED), (2, PASSED), 3, "version 3 stays challenger: it passed and waits for somebody's word"),
        ((2, REFUSED), (3, REFUSED), None, ""),
        ((2, {}), (3, REFUSED), None, ""),
    ],
)  # fmt: skip
def test_a_judgement_gives_the_place_and_takes_it(
    registry: Registry,
    standing: tuple[int, dict[str, str]] | None,
    judged: tuple[int, dict[str, str]],
    holds: int | None,
    words: str,
) -> None:
    """Twice, as after a process that died: the second time changes nothing."""
    dataset, number = f"orders{next(DATASETS)}", judged[0]
    add_versions(registry, dataset, dict([standing, judged] if standing else [judged]))
    registry.set_challenger(dataset, standing[0] if standing else None)
    for repeated in (False, True):
        place = settle(registry, registry.version(dataset, number), registry.champion(dataset))
        found = registry.challenger(dataset)
        assert (found.version if found else None) == holds
        assert place.alias == ("challenger" if holds == number else "")
        assert place.words == ("" if repeated and holds == number else words)
