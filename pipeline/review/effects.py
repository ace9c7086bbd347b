"""What saved rules do: how many records each hides now, and how many similar ones people confirmed.

Belongs here: counts for saved rules. Does not: what a draft would have hidden (suppression.py).

The cost does not grow with the queue: hidden records have an index of their own, and only the newest
confirmed ones are looked at, once for all the rules of a dataset.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import sqlalchemy as sa
from pydantic import Field

from pipeline.records.verdicts import NOT_LEARNED
from pipeline.review.filters import Filters, chunks
from pipeline.review.queue import newest
from pipeline.review.suppression import Rule
from pipeline.storage.ledger import Ledger
from pipeline.storage.review_schema import queue

MOST_CONFIRMED = 1000  # per dataset, and per kind of verdict that confirms


@dataclass(frozen=True, kw_only=True)
class RuleAtWork(Rule):
    """A saved rule and what it does. It hides no confirmed record, but these say what hidden ones may be."""

    n_hidden: Annotated[int, Field(description="open records that it hides now")]
    n_confirmed: Annotated[
        int,
        Field(
            description="records that it matches and that were confirmed, among the newest thousand anomalies "
            "and data errors"
        ),
    ]


def effects(ledger: Ledger, rules: Sequence[Rule]) -> list[RuleAtWork]:
    """Return what each rule does; one that was ended and hides nothing any more does nothing."""
    hidden = _hidden(ledger)
    at_work = [rule for rule in rules if rule.ended_by is None or rule.number in hidden]
    confirmed: Counter[int] = Counter()
    for dataset in sorted({rule.dataset for rule in at_work}):
        mine = [rule for rule in at_work if rule.dataset == dataset]
        for signature, record in _confirmed(ledger, dataset):
            confirmed.update(rule.number for rule in mine if rule.hides(signature, record))
    return [
        RuleAtWork(**vars(rule), n_hidden=hidden.get(rule.number, 0), n_confirmed=confirmed[rule.number])
        for rule in rules
    ]


def _hidden(ledger: Ledger) -> dict[int, int]:
    # a literal: SQLite does not use the partial index for a parameter
    is_hidden = queue.c.suppressed != sa.literal_column("0")
    query = sa.select(queue.c.suppressed, sa.func.count()).where(is_hidden).group_by(queue.c.suppressed)
    with ledger.transaction() as connection:
        return {number: int(n) for number, n in connection.execute(query)}


def _confirmed(ledger: Ledger, dataset: str) -> list[tuple[str, dict[str, Any]]]:
    """Return signature and values of the newest confirmed records."""
    names = [
        name
        for state in NOT_LEARNED
        for name in newest(ledger, Filters(dataset=dataset, state=state, kind="flagged"), MOST_CONFIRMED)
    ]
    columns, found = (queue.c.signature, queue.c.record), []
    with ledger.transaction() as connection:
        for part in chunks(names):
            some = sa.select(*columns).where(queue.c.anomaly_id.in_(part))
            found += [(row.signature, json.loads(row.record)) for row in connection.execute(some)]
    return found
