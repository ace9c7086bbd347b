"""Saying what a record is, and taking it back.

Belongs here: verdicts, each act one transaction. Does not: what verdicts come to
(pipeline/records/verdicts.py) or are good for (training/training_set.py, statistics.py), what an act is
called (acts.py), or who is at a record meanwhile (claims.py). A writer locks before it reads: of two people
who judge at once, the second sees what the first said, and both verdicts stay.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from pipeline.errors import ConfigError, NotReady
from pipeline.records.verdicts import (
    OPINIONS,
    WITHDRAWN,
    Opinion,
    State,
    Verdict,
    name_fault,
    read_history,
    standing,
)
from pipeline.review import acts, claims
from pipeline.review.filters import Filters, chunks, without_nul
from pipeline.review.intake import retally, stands
from pipeline.review.queue import read_members, read_states
from pipeline.review.suppression import hidden_by
from pipeline.storage.ledger import Ledger
from pipeline.storage.review_schema import queue, verdicts

LONGEST_NOTE = 4000


@dataclass(frozen=True)
class Judged:
    """What a call changed.

    Attributes:
        act: identifies the call, so that it can be undone.
        anomaly_ids: records that got an entry; not those whose verdict stood already.
        conflicts: of the records given, those on which reviewers now differ.
        claimed: records that were left out because somebody else is at them.
        before: what the verdicts on those that got an entry came to until then; of those in the queue only.
    """

    act: str
    anomaly_ids: tuple[str, ...]
    conflicts: tuple[str, ...]
    claimed: tuple[str, ...]
    before: dict[str, State]


def give(
    ledger: Ledger,
    anomaly_ids: Sequence[str],
    opinion: Opinion,
    *,
    by: str,
    note: str = "",
    settle: bool = False,
    anyway: bool = False,
) -> Judged:
    """Add one reviewer's verdict to each of these records; earlier ones stay.

    A verdict that the reviewer has already given is not written again, unless with another note; without one
    it keeps the note that it has. Records that somebody else claims are left out and named, unless `anyway`;
    a claim does not matter where the verdict already stands.

    Args:
        settle: end a disagreement: what others said of these records before no longer counts.
        anyway: write to claimed records, too.

    Raises:
        ConfigError: no such opinion, no name, or too long a name or note.
        NotReady: a record is not in the queue; nothing was written.
        ClaimedByAnother: somebody else claims every record that lacks this verdict; nothing was written.
    """
    _check(opinion, by, note)
    with ledger.transaction(write=True) as connection:
        return _give(connection, anomaly_ids, opinion, by, note, settle=settle, anyway=anyway)


def give_group(
    ledger: Ledger,
    group: Filters,
    opinion: Opinion,
    *,
    by: str,
    note: str = "",
    n: int,
    anyway: bool = False,
) -> Judged:
    """Give one verdict, as `give` does, to every open flagged record of a signature.

    Args:
        group: dataset, signature, and the days or the batch, where the reviewer saw a part only.
        n: how many there were when the reviewer looked.

    Raises:
        NotReady: there are fewer or more by now, or none; nothing was written.
        ClaimedByAnother: somebody else claims each of them; nothing was written.
    """
    _check(opinion, by, note)
    with ledger.transaction(write=True) as connection:
        chosen = read_members(connection, replace(group, state="open", kind="flagged"))
        if len(chosen) != n or not chosen:
            raise NotReady(
                f"the group has {len(chosen)} open records now, not {n}: look again; nothing was written"
            )
        return _give(connection, chosen, opinion, by, note, anyway=anyway)


def undo(ledger: Ledger, act: str, *, by: str) -> Judged:
    """Withdraw what was said in one act, with an entry each; nothing is deleted. A repeat changes nothing.

    Raises:
        NotReady: there is no such act; it is another reviewer's; or it is empty, as for a reviewer without
            one.
    """
    undone, now = secrets.token_hex(16), datetime.now(UTC)
    with ledger.transaction(write=True) as connection:
        query = sa.select(verdicts).where(verdicts.c.act == without_nul(act), verdicts.c.verdict != WITHDRAWN)
        mine = connection.execute(query.order_by(verdicts.c.number)).all() if act else []
        if not mine or mine[0].by != by:
            if not mine:
                raise NotReady(
                    acts.no_act(act)
                    if act
                    else f"nothing was undone: {by} has no verdict that could be taken back"
                )
            raise NotReady(f"nothing was undone: it is {mine[0].by}'s: give a verdict of your own instead")
        again = sa.select(verdicts.c.withdraws).where(
            verdicts.c.withdraws.in_(query.with_only_columns(verdicts.c.number))
        )
        gone = set(connection.execute(again).scalars())
        entries = [
            _entry(row, WITHDRAWN, "", by, now, undone) | {"withdraws": row.number}
            for row in mine
            if row.number not in gone
        ]
        ids = [entry["anomaly_id"] for entry in entries]
        before = read_states(connection, ids)
        if entries:
            connection.execute(sa.insert(verdicts), entries)
        for dataset in {entry["dataset"] for entry in entries}:
            _restate(connection, dataset, [entry for entry in entries if entry["dataset"] == dataset])
        return Judged(undone, tuple(ids), _in_conflict(connection, ids), (), before)


def _give(
    connection: sa.Connection,
    anomaly_ids: Sequence[str],
    opinion: Opinion,
    by: str,
    note: str,
    *,
    settle: bool = False,
    anyway: bool = False,
) -> Judged:
    act, now = secrets.token_hex(16), datetime.now(UTC)
    told: list[str] = []
    before: dict[str, State] = {}
    unsaid: dict[str, list[Any]] = {}
    for dataset, records in _records(connection, anomaly_ids).items():
        given: dict[str, list[Verdict]] = {}
        for some in chunks(records):
            given |= read_history(connection, dataset, [one.anomaly_id for one in some])
        unsaid[dataset] = [
            one
            for one in records
            if not _says_already(given.get(one.anomaly_id, []), by, opinion, note, settle=settle)
        ]
    rows = [one for records in unsaid.values() for one in records]
    claimed = set[str]() if anyway else claims.of_others(connection, rows, by)
    for dataset, records in unsaid.items():
        free = [one for one in records if one.anomaly_id not in claimed]
        entries = [_entry(one, opinion, note, by, now, act) | {"settles": settle} for one in free]
        if entries:
            connection.execute(sa.insert(verdicts), entries)
            told += (ids := [entry["anomaly_id"] for entry in entries])
            before |= read_states(connection, ids)
            _restate(connection, dataset, entries)
    in_conflict = _in_conflict(connection, anomaly_ids)
    return Judged(act, tuple(told), in_conflict, tuple(sorted(claimed)), before)


def _check(opinion: str, by: str, note: str) -> None:
    if opinion not in OPINIONS:
        raise ConfigError(f"{opinion!r} is not a verdict; give one of {', '.join(OPINIONS)}")
    if not by.strip():
        raise ConfigError("a verdict needs the name of whoever gives it")
    if fault := name_fault(by):
        raise ConfigError(fault)
    if len(note) > LONGEST_NOTE:
        raise ConfigError(f"the note has {len(note)} characters, {LONGEST_NOTE} at most")


def _records(connection: sa.Connection, anomaly_ids: Sequence[str]) -> dict[str, list[Any]]:
    """Return the rows that identify these records, by dataset.

    Raises:
        NotReady: one is not in the queue.
    """
    wanted = list(dict.fromkeys(map(without_nul, anomaly_ids)))
    found: dict[str, list[Any]] = {}
    for some in chunks(wanted):
        names = ("dataset", "anomaly_id", "batch_id", "record_key", "row_number")
        columns = [queue.c[name] for name in names]
        query = sa.select(*columns).where(queue.c.anomaly_id.in_(some))
        for row in connection.execute(query):
            found.setdefault(row.dataset, []).append(row)
    n_found = sum(map(len, found.values()))
    if n_found < len(wanted):
        raise NotReady(
            f"{len(wanted) - n_found} of {len(wanted)} records are not in the queue (scored again since?); nothing was written"
        )
    return found


def _entry(record: Any, verdict: str, note: str, by: str, at: datetime, act: str) -> dict[str, Any]:
    names = {name: getattr(record, name) for name in ("dataset", "anomaly_id", "batch_id", "record_key")}
    said = {"verdict": verdict, "note": note.replace("\0", ""), "by": by, "decided_at": at, "act": act}
    return names | said | {"withdraws": None, "settles": False}


def _says_already(
    entries: Sequence[Verdict], by: str, opinion: str, note: str, *, settle: bool = False
) -> bool:
    """Return whether this verdict stands; to settle, it must be the only one that does, and have settled.

    Said again without a note it is the same, and keeps the note that it has.
    """
    holding = standing(entries).holding
    same = [
        (said.by, said.verdict) == (by, opinion) and (not note or said.note == note.replace("\0", ""))
        for said in holding
    ]
    return same == [True] and holding[0].settles if settle else any(same)


def _restate(connection: sa.Connection, dataset: str, entries: Sequence[dict[str, Any]]) -> None:
    """Update the queue from the verdicts of these records."""
    for ids in chunks(entry["anomaly_id"] for entry in entries):
        given = read_history(connection, dataset, ids)
        connection.execute(
            sa
            .update(queue)
            .where(queue.c.anomaly_id == sa.bindparam("this"))
            .values({name: sa.bindparam(name) for name in ("state", "reviewer", "decided_at", "suppressed")}),
            _stands(connection, dataset, given),
        )
        claims.end(connection, ids, {entry["by"] for entry in entries})
    retally(connection, dataset, (entry["batch_id"] for entry in entries))


def _stands(
    connection: sa.Connection, dataset: str, given: Mapping[str, Sequence[Verdict]]
) -> list[dict[str, Any]]:
    """Return columns of the queue; a record that is open again is hidden again if a rule in force matches."""
    found = {anomaly_id: stands(said) for anomaly_id, said in given.items()}
    again = hidden_by(connection, dataset, [name for name, one in found.items() if one["state"] == "open"])
    return [{"this": name, "suppressed": again.get(name, 0), **one} for name, one in found.items()]


def _in_conflict(connection: sa.Connection, anomaly_ids: Sequence[str]) -> tuple[str, ...]:
    found: list[str] = []
    for some in chunks(anomaly_ids):
        these = queue.c.anomaly_id.in_(some) & (queue.c.state == "conflict")
        found += connection.execute(sa.select(queue.c.anomaly_id).where(these)).scalars()
    return tuple(sorted(found))
