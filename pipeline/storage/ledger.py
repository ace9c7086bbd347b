"""What was done with each batch: one row per version of a batch, in a relational database.

Belongs here: status, counts and history, each change in one transaction. Does not: records or scores
(tables.py); a step writes those first and the ledger last, so that a killed step is simply repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple, Self

import sqlalchemy as sa

from pipeline.storage.database import Database
from pipeline.storage.ledger_schema import batches, claims, periods, serving

Status = Literal["accepted", "refused", "scored"]


@dataclass(frozen=True)
class BatchState:
    """One version of one batch. n_read = n_accepted + n_set_aside, unless it was refused: then none of it is
    kept anywhere but where it landed.

    Attributes:
        above_usual: chance that a record of the batch scores above a normal one; one half is usual.
        is_odd: monitoring finds that the batch as a whole scores higher than usual.
        looks_since: from when on its derived columns saw earlier records; None where it has none.
        looked_back: what looking_back.looked_back_on said of them.
        tone, headline: what the top of its page says (report/trust.py); None unless scored.
    """

    dataset: str
    batch_id: str
    version: int
    status: Status
    reason: str
    fingerprint: str
    signature: str
    contract_hash: str
    files: list[str]
    notes: list[str]
    set_aside: dict[str, int]
    n_read: int
    n_accepted: int
    newest_record_at: datetime | None
    validated_at: datetime
    model_version: int | None = None
    threshold: float | None = None
    n_flagged: int | None = None
    scored_at: datetime | None = None
    above_usual: float | None = None
    is_odd: bool | None = None
    looks_since: datetime | None = None
    looked_back: str | None = None
    tone: str | None = None
    headline: str | None = None

    @property
    def n_set_aside(self) -> int:
        """Records that are kept in the table `records` with their reasons; none of a refused batch."""
        return 0 if self.status == "refused" else self.n_read - self.n_accepted

    @property
    def is_unreadable(self) -> bool:
        """Whether it was refused before its files could be read: their content has no fingerprint."""
        return self.status == "refused" and not self.n_read and self.fingerprint == self.signature

    @classmethod
    def of(cls, row: Any) -> Self:
        return cls(**{name: getattr(row, name) for name in FIELDS})

    @property
    def values(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in FIELDS}


FIELDS = tuple(field.name for field in fields(BatchState))


class Head(NamedTuple):
    """As much of a batch's newest version as sorts and counts batches."""

    dataset: str
    batch_id: str
    version: int
    status: Status
    newest_record_at: datetime | None
    validated_at: datetime


class Flagged(NamedTuple):
    """The threshold by which a batch was flagged, and when: sorts by time."""

    at: datetime
    batch_id: str
    model_version: int
    threshold: float


class Ledger(Database):
    """What was done with each batch of one installation, and which model serves."""

    def current(self, dataset: str) -> dict[str, BatchState]:
        """Return the newest version of every batch, by batch_id in order."""
        newest = sa.select(batches.c.batch_id, sa.func.max(batches.c.version).label("version"))
        newest_of = newest.where(batches.c.dataset == dataset).group_by(batches.c.batch_id).subquery()
        same = (batches.c.batch_id == newest_of.c.batch_id) & (batches.c.version == newest_of.c.version)
        query = sa.select(batches).join(newest_of, same).where(batches.c.dataset == dataset)
        with self.transaction() as connection:
            return {
                row.batch_id: BatchState.of(row)
                for row in connection.execute(query.order_by(batches.c.batch_id))
            }

    def flagged(self, dataset: str, model_version: int | None = None) -> list[Flagged]:
        """Return the threshold by which each batch, or each of one version, was last flagged; oldest first.

        Reads four columns alone: a thousand whole states take five times as long.
        """
        found = (batches.c.scored_at, batches.c.batch_id, batches.c.model_version, batches.c.threshold)
        query = sa.select(*found).where(
            batches.c.dataset == dataset, *(column.is_not(None) for column in found)
        )
        if model_version is not None:
            query = query.where(batches.c.model_version == model_version)
        with self.transaction() as connection:
            rows = connection.execute(query.where(_is_newest()))
            return sorted(Flagged(*row) for row in rows)

    def heads(self, datasets: Collection[str] | None) -> list[Head]:
        """Return the newest version of every batch of some datasets, or of all, in no order.

        Reads six columns alone, for the reason that `flagged` does.
        """
        query = sa.select(*(batches.c[name] for name in Head._fields)).where(_is_newest())
        if datasets is not None:
            query = query.where(batches.c.dataset.in_(datasets))
        with self.transaction() as connection:
            return [Head(*row) for row in connection.execute(query)]

    def states(self, heads: Sequence[Head]) -> list[BatchState]:
        """Return these versions whole, in the same order; those that are gone meanwhile are left out."""
        keys = [(one.dataset, one.batch_id, one.version) for one in heads]
        key = sa.tuple_(batches.c.dataset, batches.c.batch_id, batches.c.version)
        with self.transaction() as connection:
            rows = connection.execute(sa.select(batches).where(key.in_(keys)))
            found = {(row.dataset, row.batch_id, row.version): BatchState.of(row) for row in rows}
        return [found[one] for one in keys if one in found]

    def datasets(self) -> list[str]:
        """Return every dataset with a validated batch, in order."""
        query = sa.select(batches.c.dataset).distinct().order_by(batches.c.dataset)
        with self.transaction() as connection:
            return list(connection.execute(query).scalars())

    def history(self, dataset: str, batch_id: str) -> list[BatchState]:
        """Return every version of a batch, oldest first."""
        query = sa.select(batches).where(batches.c.dataset == dataset, batches.c.batch_id == batch_id)
        with self.transaction() as connection:
            return [BatchState.of(row) for row in connection.execute(query.order_by(batches.c.version))]

    def newest(self, dataset: str, batch_id: str) -> BatchState | None:
        """Return the newest version of one batch; None where it was never validated."""
        return next(iter(reversed(self.history(dataset, batch_id))), None)

    def record_validation(self, state: BatchState) -> BatchState:
        """Write a validation: a new version where the content is new, else in place of the earlier one.

        One of which something is published that this does not replace is kept: scores stay until there are
        others, and after a refusal records do, too.
        """
        with self.transaction(write=True) as connection:
            same_batch = (batches.c.dataset == state.dataset) & (batches.c.batch_id == state.batch_id)
            last = connection.execute(
                sa.select(batches).where(same_batch).order_by(batches.c.version.desc()).limit(1)
            ).one_or_none()
            is_other = last is None or last.fingerprint != state.fingerprint
            stands = last is not None and (
                last.status == "scored" or (last.status == "accepted" and state.status == "refused")
            )
            version = (last.version if last else 0) + (1 if is_other or stands else 0)
            row = state.values | {"version": version}
            row["reason"] = state.reason.encode(
                "utf-8", "replace"
            ).decode()  # it may quote a file name that is not UTF-8
            connection.execute(sa.delete(batches).where(same_batch, batches.c.version == version))
            connection.execute(sa.insert(batches).values(row))
        return BatchState(**row)

    def touch(self, state: BatchState, signature: str) -> None:
        """Note that a batch's files were written again with the same content."""
        self._update(state, signature=signature)

    def record_scores(
        self,
        state: BatchState,
        *,
        model_version: int,
        threshold: float,
        n_flagged: int,
        above_usual: float | None = None,
        is_odd: bool | None = None,
        looks_since: datetime | None = None,
        looked_back: str | None = None,
        tone: str | None = None,
        headline: str | None = None,
    ) -> BatchState:
        """Mark a batch as scored by a model version."""
        changes: dict[str, Any] = {
            "status": "scored",
            "model_version": model_version,
            "threshold": threshold,
            "n_flagged": n_flagged,
            "scored_at": datetime.now(UTC),
            "above_usual": above_usual,
            "is_odd": is_odd,
            "looks_since": looks_since,
            "looked_back": looked_back,
            "tone": tone,
            "headline": headline,
        }
        self._update(state, **changes)
        return replace(state, **changes)

    def mark_odd(self, state: BatchState, *, is_odd: bool) -> None:
        """Note whether a scored batch is odd as a whole, after judging it again."""
        self._update(state, is_odd=is_odd)

    def note_headline(self, state: BatchState, tone: str, headline: str) -> None:
        """Note what a scored batch's page says now, unless the batch was scored again meanwhile."""
        this = (batches.c.dataset == state.dataset) & (batches.c.batch_id == state.batch_id)
        as_scored = (batches.c.version == state.version) & (batches.c.scored_at == state.scored_at)
        with self.transaction(write=True) as connection:
            connection.execute(sa.update(batches).where(this, as_scored).values(tone=tone, headline=headline))

    def claim(self, dataset: str, batch_ids: Sequence[str], lease: timedelta) -> list[str]:
        """Claim batches for a scheduler run; those claimed within `lease` by an earlier one are left out."""
        now = datetime.now(UTC)
        with self.transaction(write=True) as connection:
            query = sa.select(claims.c.batch_id).where(
                claims.c.dataset == dataset, claims.c.claimed_at > now - lease
            )
            taken = set(connection.execute(query).scalars())
            free = [batch_id for batch_id in batch_ids if batch_id not in taken]
            for batch_id in free:
                connection.execute(
                    sa.delete(claims).where(claims.c.dataset == dataset, claims.c.batch_id == batch_id)
                )
                connection.execute(
                    sa.insert(claims).values(dataset=dataset, batch_id=batch_id, claimed_at=now)
                )
        return free

    def release_claims(self, dataset: str, batch_ids: Sequence[str]) -> None:
        """Let batches be claimed again at once."""
        with self.transaction(write=True) as connection:
            for batch_id in batch_ids:
                connection.execute(
                    sa.delete(claims).where(claims.c.dataset == dataset, claims.c.batch_id == batch_id)
                )

    def clear_claims(self) -> None:
        """Forget all claims: for a scheduler that starts, when nothing can be in flight."""
        with self.transaction() as connection:
            connection.execute(sa.delete(claims))

    def known_periods(self, dataset: str, signature: str) -> list[dict[str, int]] | None:
        """Return records per period of a delivery inspected before; None where it was not."""
        query = sa.select(periods.c.counts).where(
            periods.c.dataset == dataset, periods.c.signature == signature
        )
        with self.transaction() as connection:
            found: list[dict[str, int]] | None = connection.execute(query).scalar_one_or_none()
            return found

    def remember_periods(self, dataset: str, signature: str, counts: Sequence[Mapping[str, int]]) -> None:
        with self.transaction(write=True) as connection:
            same = (periods.c.dataset == dataset) & (periods.c.signature == signature)
            connection.execute(sa.delete(periods).where(same))
            connection.execute(
                sa.insert(periods).values(dataset=dataset, signature=signature, counts=list(counts))
            )

    def serving_version(self, dataset: str) -> int | None:
        """Return the champion as last seen here.

        The registry is the authority; this answers without asking it.
        """
        query = sa.select(serving.c.model_version).where(serving.c.dataset == dataset)
        with self.transaction() as connection:
            return connection.execute(query).scalar_one_or_none()

    def trained_at(self, dataset: str) -> datetime | None:
        """Return when the dataset was last trained from here."""
        query = sa.select(serving.c.trained_at).where(serving.c.dataset == dataset)
        with self.transaction() as connection:
            return connection.execute(query).scalar_one_or_none()

    def train_ended_at(self, dataset: str) -> datetime | None:
        """Return when the step train last ended well here, even without an occasion to train."""
        query = sa.select(serving.c.train_ended_at).where(serving.c.dataset == dataset)
        with self.transaction() as connection:
            return connection.execute(query).scalar_one_or_none()

    def set_serving(self, dataset: str, model_version: int) -> None:
        self._note(dataset, model_version=model_version)

    @contextmanager
    def changing_champion(self, dataset: str) -> Iterator[Callable[[int], None]]:
        """Hold the lock of all writers while a block changes which version serves.

        Two promotions thus come one after the other. A process that dies releases it at once. Yields what
        notes the version that serves.
        """
        with self.transaction(write=True) as connection:
            yield lambda version: self._note_within(connection, dataset, model_version=version)

    def set_trained(self, dataset: str, trained_at: datetime, ended_at: datetime | None = None) -> None:
        """Note when the newest training ended, and the step train; by default at the same time."""
        self._note(dataset, trained_at=trained_at, train_ended_at=ended_at or trained_at)

    def set_train_ended(self, dataset: str, train_ended_at: datetime) -> None:
        """Note when the step train ended without an occasion to train."""
        self._note(dataset, train_ended_at=train_ended_at)

    def _note(self, dataset: str, **values: Any) -> None:
        with self.transaction(write=True) as connection:
            self._note_within(connection, dataset, **values)

    @staticmethod
    def _note_within(connection: sa.Connection, dataset: str, **values: Any) -> None:
        changed = connection.execute(sa.update(serving).where(serving.c.dataset == dataset).values(values))
        if changed.rowcount == 0:
            connection.execute(sa.insert(serving).values(dataset=dataset, **values))

    def _update(self, state: BatchState, **changes: Any) -> None:
        this = (batches.c.dataset == state.dataset) & (batches.c.batch_id == state.batch_id)
        with self.transaction(write=True) as connection:
            connection.execute(
                sa.update(batches).where(this, batches.c.version == state.version).values(changes)
            )


def _is_newest() -> sa.ColumnElement[bool]:
    """Whether a row is the newest version of its batch."""
    later = batches.alias()
    same = (later.c.dataset == batches.c.dataset) & (later.c.batch_id == batches.c.batch_id)
    return ~sa.exists().where(same & (later.c.version > batches.c.version))
