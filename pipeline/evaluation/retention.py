"""Which model versions are kept, and why.

Belongs here: the decision, and what in ledger, review and tables refers to a version. Does not: removing them
from the registry (registry/).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    from pipeline.registry import ModelVersion
    from pipeline.storage.ledger import Ledger
    from pipeline.storage.tables import Tables

ABANDONED = 7 * 24 * 3600  # seconds after which nobody resumes a stopped training


def reasons_to_keep(
    versions: Sequence[ModelVersion],
    *,
    newest: int,
    previous: int | None,
    judged: Mapping[int, int],
    published: Mapping[int, int],
    copies: Mapping[int, Sequence[str]],
) -> dict[int, tuple[str, ...]]:
    """Return why each version stays; empty for one that may go.

    Args:
        versions: all of a dataset, oldest first.
        newest: how many of the newest stay in any case.
        previous: the version that a rollback would bring back.
        judged: by version, how many records it flagged that were judged.
        published: by version, how many batches have its scores in the tables.
        copies: by version, versions of other registered models that share its files.
    """
    last = {version.version for version in versions[-newest:]}

    def reasons(version: ModelVersion) -> Iterator[str]:
        number = version.version
        yield from version.aliases
        if number == previous and "previous" not in version.aliases:
            yield "previous"
        if number in published:
            yield f"it gave the published scores of {_counted(published[number], 'batch', 'batches')}"
        if number in judged:
            yield f"{_counted(judged[number], 'record that it flagged was', 'records that it flagged were')} judged"
        yield from (f"{copy} shares its files" for copy in copies.get(number, ()))
        if number in last:
            yield f"one of the newest {newest}"

    return {version.version: tuple(reasons(version)) for version in versions}


def judged(ledger: Ledger, dataset: str) -> dict[int, int]:
    """Return by model version on how many records it put before people a verdict stands.

    One that was withdrawn does not.
    """
    from pipeline.storage.review_schema import queue, scorings

    said = sa.select(queue.c.anomaly_id).where(queue.c.dataset == dataset, queue.c.state != "open")
    query = (
        sa
        .select(scorings.c.model_version, sa.func.count().label("n"))
        .where(scorings.c.dataset == dataset, scorings.c.kind != "cleared", scorings.c.anomaly_id.in_(said))
        .group_by(scorings.c.model_version)
    )
    with ledger.transaction() as connection:
        return {row.model_version: row.n for row in connection.execute(query)}


def published(ledger: Ledger, tables: Tables, dataset: str) -> dict[int, int]:
    """Return by model version how many batches have its scores.

    The tables decide; for a batch without records the ledger.
    """
    found: dict[int, int] = {}
    for state in ledger.current(dataset).values():
        if state.model_version is not None:
            found[state.model_version] = found.get(state.model_version, 0) + 1
    return found | tables.model_versions()


def stopped(trainings: Path) -> list[Path]:
    """Return what in a folder of trainings is too old to be a running one's."""
    before, found = time.time() - ABANDONED, []
    for path in trainings.glob("*"):
        with suppress(FileNotFoundError):  # a training that ends removes what it left for another try
            if path.stat().st_mtime < before:
                found.append(path)
    return sorted(found)


def size(path: Path) -> int:
    return sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _counted(n: int, one: str, many: str) -> str:
    return f"{n} {one if n == 1 else many}"
