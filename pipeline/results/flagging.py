"""By which rule each model version flags, since when, who decided it and why: kept beside the model for good.

Belongs here: recording a rule as it takes effect, and reading the record. Does not: what a rule comes to in
nats (detection/calibration.py), or which one is better (review/budget.py).

A rule is set in the dataset's file and holds for what is scored from then on. Whoever scores next records it
before a record is flagged by it; a person may record it at once, with a reason. Records keep the threshold
that they were scored with.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from pipeline.config.dataset import Dataset
from pipeline.errors import ConfigError, NotReady
from pipeline.numerals import number
from pipeline.records.verdicts import name_fault
from pipeline.storage.ledger_schema import flag_rules

if TYPE_CHECKING:
    from pipeline.installation import Installation
    from pipeline.registry import ModelVersion
    from pipeline.storage.ledger import Ledger

LONGEST_REASON = 4000
THE_FILE = "the dataset's file"  # who decided, where that is unknown


@dataclass(frozen=True)
class FlagRule:
    """A rule, from the moment when a model version began to flag by it.

    Attributes:
        rule, before: as in the dataset's file, `review_budget 20`. `before` is the version's rule until then,
            or if it had none the dataset's; None where nothing was recorded.
        threshold: what the rule gives for this version, nats; None where it depends on each batch.
        threshold_before: what this version had until then.
        by: who decided it; THE_FILE where it was found there.
    """

    dataset: str
    model_version: int
    rule: str
    before: str | None
    threshold: float | None
    threshold_before: float | None
    by: str
    reason: str
    at: datetime

    @property
    def is_change(self) -> bool:
        """Whether somebody changed something: not a first rule, nor the same one for another version."""
        return bool(self.reason) or self.before not in {None, self.rule}

    @property
    def words(self) -> str:
        """review_budget 2 instead of review_budget 20: above 31.5 nats, 24.1 before; half were noise"""
        other = f" instead of {self.before}" if self.before not in {None, self.rule} else ""
        was = self.threshold_before
        earlier = "" if was in {None, self.threshold} else f", {number(was)} before"
        above = (
            f"above {number(self.threshold)} nats"
            if self.threshold is not None
            else "each batch has its own threshold"
        )
        return f"{self.rule}{other}: {above}{earlier}" + (f"; {self.reason}" if self.reason else "")


def rule_of(dataset: Dataset) -> str:
    """Return a dataset's rule in words, cap and all: `error_rate 0.001, cap 50`."""
    given = dataset.flag.model_dump(exclude_none=True)
    return ", ".join(f"{name} {str(value).removesuffix('.0')}" for name, value in given.items())


def write_down(
    ledger: Ledger, dataset: Dataset, version: int, threshold: float, *, by: str = "", reason: str = ""
) -> FlagRule | None:
    """Record the rule by which a version flags from now on; None where that is recorded already.

    Args:
        threshold: what the rule gives for the version, nats.
        by, reason: a person's decision; the same rule may be given a reason once it holds.
    """
    rule, name = rule_of(dataset), dataset.name
    own = dataset.flag.false_discovery_rate is not None  # each batch has its own threshold
    with ledger.transaction(write=True) as connection:
        known = _read(connection, name)
        own_entries = [one for one in known if one.model_version == version]
        mine = own_entries[0] if own_entries else None
        since = list(takewhile(lambda one: one.rule == rule, own_entries))  # entries since it last changed
        if any(not reason or (one.by, one.reason) == (by, reason) for one in since):
            return None
        entry = FlagRule(
            dataset=name,
            model_version=version,
            rule=rule,
            before=next((one.rule for one in (mine, *known) if one), None),
            threshold=None if own else threshold,
            threshold_before=mine.threshold if mine else None,
            by=by or THE_FILE,
            reason=reason,
            at=datetime.now(UTC),
        )
        connection.execute(sa.insert(flag_rules).values(**vars(entry)))
    return entry


def takes_effect(here: Installation, dataset: Dataset, version: ModelVersion, threshold: float) -> None:
    """Record a rule before records are flagged by it, in the ledger and as a tag on the version.

    Interrupted in between, the next call completes it.

    Raises:
        RegistryUnreachable, StorageFailed: a retry may help.
    """
    write_down(here.ledger, dataset, version.version, threshold)
    here.registry.note_rule(version, _in_force(here.ledger, dataset.name, version.version))


def give_reason(here: Installation, dataset: Dataset, *, by: str, reason: str) -> FlagRule | None:
    """Record at once, for the version that serves, the rule that the dataset's file has now.

    Returns None where the same was recorded before.

    Raises:
        NotReady: no version serves.
        ConfigError: the reason is empty or too long, or the name is too long.
        ModelUnusable, RegistryUnreachable, StorageFailed: nothing was written.
    """
    if not reason.strip() or len(reason) > LONGEST_REASON:
        raise ConfigError(f"{dataset.name}: give a reason of 1 to {LONGEST_REASON} characters")
    if fault := name_fault(by):
        raise ConfigError(f"{dataset.name}: {fault}")
    champion = here.registry.champion(dataset.name)
    if champion is None:
        raise NotReady(f"{dataset.name} has no champion yet, so nothing is flagged: train first")
    threshold = here.detector(champion).threshold(dataset.flag).value
    given = write_down(
        here.ledger, dataset, champion.version, threshold, by=by, reason=reason.replace("\0", "")
    )
    here.registry.note_rule(champion, _in_force(here.ledger, dataset.name, champion.version))
    return given


def rules(ledger: Ledger, dataset: str, model_version: int | None = None) -> list[FlagRule]:
    """Return every recorded rule, of one version or of all; the newest first."""
    with ledger.transaction() as connection:
        found = _read(connection, dataset)
    return [one for one in found if model_version in {None, one.model_version}]


def changes(ledger: Ledger, dataset: str, model_version: int | None = None) -> list[FlagRule]:
    """Return the rules with which somebody changed something; the newest first."""
    return [one for one in rules(ledger, dataset, model_version) if one.is_change]


def in_words(found: Iterable[FlagRule]) -> list[str]:
    """Return lines such as: 2026-01-31 03:00 UTC, version 3, ann: review_budget 2 instead of …"""
    return [
        f"{one.at:%Y-%m-%d %H:%M} UTC, version {one.model_version}, {one.by}: {one.words}" for one in found
    ]


def _in_force(ledger: Ledger, dataset: str, version: int) -> str:
    newest = rules(ledger, dataset, version)[0]
    return f"{newest.words} ({newest.by}, {newest.at:%Y-%m-%d %H:%M} UTC)"


def _read(connection: sa.Connection, dataset: str) -> list[FlagRule]:
    columns: list[Any] = [column for column in flag_rules.c if column.name != "number"]
    query = sa.select(*columns).where(flag_rules.c.dataset == dataset).order_by(flag_rules.c.number.desc())
    return [FlagRule(**row._mapping) for row in connection.execute(query)]
