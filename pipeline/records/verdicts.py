"""What people found records to be, and what their verdicts together come to.

Belongs here: opinions, one person's verdict, where a record stands after several, and which records that
keeps out of training or in it. Does not: giving or withdrawing a verdict (review/judging.py), or the records
(storage/tables.py).

A verdict names a record, not a row of a table: it outlives scoring again, another model and another delivery.
Importing this costs nothing, because the command line offers the opinions.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Self, cast, get_args

if TYPE_CHECKING:
    from pipeline.storage.ledger import Ledger

Opinion = Literal["anomaly", "normal", "expected_change", "data_error", "unsure"]
State = Literal["open", "anomaly", "normal", "expected_change", "data_error", "unsure", "conflict"]
OPINIONS: tuple[Opinion, ...] = get_args(Opinion)
STATES: tuple[State, ...] = get_args(State)
WITHDRAWN = "withdrawn"
LONGEST_NAME = 250  # of a person, in every table
NOT_LEARNED: tuple[Opinion, ...] = ("anomaly", "data_error")
NORMAL: tuple[Opinion, ...] = ("normal", "expected_change")
JUDGED_NORMAL = "vaewatch judged normal"  # column of training records: people found them to be normal
CONTENT = re.compile(r"[0-9a-f]{24}-\d+")  # a key made of a record's content, and how often that came before
PLACE = "vaewatch place"  # column of known anomalies: how many training and calibration records come before


def name_fault(by: str) -> str:
    """Return why a name is too long to keep, or nothing: SQLite takes any length, PostgreSQL does not."""
    return f"the name has {len(by)} characters, {LONGEST_NAME} at most" if len(by) > LONGEST_NAME else ""


def anomaly_id(dataset: str, batch_id: str, record_key: str) -> str:
    """Return sixteen hex digits that name a record for good, under any scoring and any model."""
    return hashlib.sha256(f"{dataset}\x1f{batch_id}\x1f{record_key}".encode()).hexdigest()[:16]


def name_of(record_key: str, batch_id: str, row_number: int) -> str:
    """A record's name for people: its key; where it has none, and a hash of its content stands for one, its
    row and its batch.

    It does not say "row of the batch": a row is counted in the delivery, of which a batch may be a part.
    """
    return f"row {row_number} ({batch_id})" if CONTENT.fullmatch(record_key) else record_key


def place_of(row_number: int, files: Sequence[str]) -> str:
    """Say in which of a delivery's files a record lies, as far as its row tells; empty if none is known."""
    if len(files) > 1:
        return f"row {row_number} of {len(files)} files, {files[0]} to {files[-1]}, one after another"
    return f"row {row_number} of {files[0]}" if files else ""


@dataclass(frozen=True)
class Verdict:
    """One person's opinion on one record at one time.

    Attributes:
        number: grows with time; names the entry.
        verdict: an opinion, or WITHDRAWN.
        withdraws: the number of the entry that this one takes back.
        settles: given in sight of a disagreement, to end it.
        act: verdicts with the same one were given together, and are undone together.
    """

    number: int
    anomaly_id: str
    batch_id: str
    record_key: str
    verdict: str
    note: str
    by: str
    decided_at: datetime
    withdraws: int | None = None
    settles: bool = False
    act: str = ""

    @classmethod
    def of(cls, row: Any) -> Self:
        return cls(**{field.name: getattr(row, field.name) for field in fields(cls)})


@dataclass(frozen=True)
class Standing:
    """Where a record stands after all that was said of it.

    Attributes:
        state: open while nothing holds; conflict where reviewers differ.
        holding: the newest verdict of each reviewer that was neither withdrawn nor settled away, oldest
            first.
    """

    state: State
    holding: tuple[Verdict, ...] = ()

    @property
    def newest(self) -> Verdict | None:
        return self.holding[-1] if self.holding else None


def standing(history: Iterable[Verdict]) -> Standing:
    """Return what a record's verdicts, oldest first, come to.

    Nobody is outvoted: where reviewers differ, somebody settles it.
    """
    entries = list(history)
    withdrawn = {entry.withdraws for entry in entries}
    holding: dict[str, Verdict] = {}
    for entry in entries:
        if entry.verdict == WITHDRAWN or entry.number in withdrawn:
            continue
        if entry.settles:
            holding.clear()
        holding.pop(entry.by, None)  # so that the newest comes last
        holding[entry.by] = entry
    said = {entry.verdict for entry in holding.values()}
    state = "open" if not said else "conflict" if len(said) > 1 else said.pop()
    return Standing(cast("State", state), tuple(holding.values()))


def in_words(states: Iterable[str]) -> str:
    """Say where records stand: where they all do, or how many in each state; nothing of none."""
    counted = [(state.replace("_", " "), n) for state, n in Counter(states).most_common()]
    if len(counted) == 1:
        return counted[0][0]
    return ", ".join(f"{n:,} {name}" for name, n in counted)


def history(
    ledger: Ledger, dataset: str, anomaly_ids: Sequence[str] | None = None
) -> dict[str, list[Verdict]]:
    """Return every entry, oldest first, by anomaly_id; of some records only, where they are given."""
    with ledger.transaction() as connection:
        return read_history(connection, dataset, anomaly_ids)


def read_history(
    connection: Any, dataset: str, anomaly_ids: Sequence[str] | None = None
) -> dict[str, list[Verdict]]:
    """Read entries as `history` does, inside the caller's transaction."""
    import sqlalchemy as sa

    from pipeline.storage.review_schema import verdicts

    query = sa.select(verdicts).where(verdicts.c.dataset == dataset).order_by(verdicts.c.number)
    if anomaly_ids is not None:
        query = query.where(verdicts.c.anomaly_id.in_(anomaly_ids))
    found: dict[str, list[Verdict]] = {}
    for row in connection.execute(query):
        found.setdefault(row.anomaly_id, []).append(Verdict.of(row))
    return found


def judged(ledger: Ledger, dataset: str) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return the records that verdicts keep out of training, and the normal ones: (batch_id, record_key).

    Both are in order. A record on which reviewers differ is in neither: a model learns what people agree on.
    """
    stands = [(entries[0], standing(entries).state) for entries in history(ledger, dataset).values()]
    odd, normal = (
        sorted((entry.batch_id, entry.record_key) for entry, state in stands if state in opinions)
        for opinions in (NOT_LEARNED, NORMAL)
    )
    return odd, normal
