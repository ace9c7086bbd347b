"""What suppression rules do: how many records each hides now, what a draft would have hidden, and how many
similar ones people confirmed.

Belongs here: counts. Does not: hiding (suppression.py).

For saved rules the cost does not grow with the queue: hidden records have an index of their own, and only the
newest confirmed ones are looked at, once for all the rules of a dataset.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Annotated, Any

import sqlalchemy as sa
from pydantic import Field

from pipeline.records.verdicts import NOT_LEARNED
from pipeline.review.filters import Filters, chunks
from pipeline.review.queue import newest, newest_day
from pipeline.review.suppression import Rule, matching
from pipeline.storage.ledger import Ledger
from pipeline.storage.review_schema import queue

LOOK_BACK = 30  # days that a draft is tried on
EXAMPLES = 5
MOST_CONFIRMED = 1000  # per dataset, and per kind of verdict that confirms


@dataclass(frozen=True)
class Preview:
    """What a rule would have hidden in the last 30 days, and what it hides of the whole queue."""

    n_hidden: Annotated[int, Field(description="flagged records, judged or not")]
    n_judged: int
    n_confirmed: Annotated[int, Field(description="anomalies and data errors")]
    n_open: Annotated[int, Field(description="open records of any day, which it hides once it is saved")]
    examples: Annotated[tuple[str, ...], Field(description="anomaly_ids, confirmed ones first")]

    @property
    def text(self) -> str:
        once_saved = f"saved, it hides {_records(self.n_open)} of the whole queue"
        hidden = f"in the last {LOOK_BACK} days it would have hidden {_records(self.n_hidden)}"
        if self.is_idle:
            return f"{hidden}: check that it says what you mean"
        if not self.n_judged:
            return f"{hidden}; none of them was judged: look at a few first; {once_saved}"
        were = "was a confirmed anomaly" if self.n_confirmed == 1 else "were confirmed anomalies"
        return f"{hidden}; of {self.n_judged:,} that were judged, {self.n_confirmed:,} {were}; {once_saved}"

    @property
    def is_idle(self) -> bool:
        """Whether it matches nothing that is known."""
        return not self.n_hidden and not self.n_open


def _records(n: int) -> str:
    return f"{n:,} record{'s' * (n != 1)}" if n else "no record"


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


def preview(ledger: Ledger, rule: Rule) -> Preview:
    """Try a rule on the queue, and its newest days up to today on their own; nothing is written."""
    last = newest_day(ledger, rule.dataset)
    if last is None:
        return Preview(0, 0, 0, 0, ())
    since = (date.fromisoformat(last) - timedelta(days=LOOK_BACK - 1)).isoformat()
    n_hidden = n_judged = n_confirmed = n_open = 0
    is_open = (queue.c.state == "open") & (queue.c.suppressed == 0)
    confirmed: list[str] = []
    others: list[str] = []
    with ledger.transaction() as connection:
        for row in matching(connection, rule, (queue.c.day >= since) | is_open):
            n_open += row.state == "open" and not row.suppressed
            if row.day < since:
                continue
            n_hidden, n_judged = n_hidden + 1, n_judged + (row.state != "open")
            n_confirmed += row.state in NOT_LEARNED
            some = confirmed if row.state in NOT_LEARNED else others
            if len(some) < EXAMPLES:
                some.append(row.anomaly_id)
    return Preview(n_hidden, n_judged, n_confirmed, n_open, tuple([*confirmed, *others][:EXAMPLES]))


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
