"""What a person chose of the queue: whether there is such a thing, and what there is instead.

Belongs here: names that no record can have, and the choices of a filter that lets nothing through. Does not:
the filters themselves (filters.py), or the names of a rule (rule_words.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from pipeline.errors import ConfigError
from pipeline.misread import meant
from pipeline.review import queue
from pipeline.review.filters import Filters, of
from pipeline.storage.review_schema import queue_batches, tally_sums

if TYPE_CHECKING:
    from pipeline.config.dataset import Dataset
    from pipeline.installation import Installation
    from pipeline.storage.ledger import Ledger

MOST_COLUMNS = 30  # named one by one
NAMED = ("driver", "model_version", "reviewer")


def check(here: Installation, filters: Filters) -> None:
    """Refuse a column or a batch that is none: that nothing is like it would look as if all was well.

    Raises:
        ConfigError: with those that there are.
    """
    whose = f" of {filters.dataset}" if filters.dataset else ""
    if (name := filters.driver) is not None and name not in _held(here.ledger, tally_sums.c.driver, filters):
        columns = {column for dataset in _datasets(here, filters) for column in dataset.with_derived}
        if name not in columns:
            raise ConfigError(f"no column {name!r}{whose}: {meant(name, columns, most=MOST_COLUMNS)}")
    held = queue_batches.c.batch_id
    if (name := filters.batch) is not None and name not in _held(here.ledger, held, filters):
        known = [here.ledger.current(dataset.name) for dataset in _datasets(here, filters)]
        batches = {batch for one in known for batch in one}
        if name not in batches:
            raise ConfigError(f"no batch {name!r}{whose}: {meant(name, batches)} (see `vaewatch status`)")


def _datasets(here: Installation, filters: Filters) -> list[Dataset]:
    return [here.dataset(filters.dataset)] if filters.dataset else list(here.datasets().values())


def _held(ledger: Ledger, column: Any, filters: Filters) -> set[str]:
    """What the queue has ever held: of a dataset without a file, and columns and batches of before, too."""
    query = of(sa.select(column).distinct(), column.table, filters.dataset)
    with ledger.transaction() as connection:
        return set(connection.execute(query).scalars())


def instead(ledger: Ledger, filters: Filters) -> dict[str, dict[Any, int]]:
    """Of each name that was chosen: how many records each other one has, the other filters being as they
    are.
    """
    chosen = [name for name in NAMED if getattr(filters, name) is not None]
    counted = queue.counts(ledger, filters) if chosen else {}
    return {name: {value: n for value, n in counted[name].items() if n and value} for name in chosen}
