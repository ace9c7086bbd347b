"""Answers about one record that are found once: what was asked of it again is not looked up again.

Belongs here: when an answer still holds. Does not: how one is found (compare.py, versions.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeVar

from pipeline.installation import Installation

KEPT = 512  # answers of a process; the oldest unasked ones go first
T = TypeVar("T")


@dataclass(frozen=True)
class _Question:
    """What an answer depends on; how it is found is no part of that."""

    kind: str
    record: tuple[object, ...]
    depends_on: tuple[object, ...]
    answer: Callable[[], Any] = field(compare=False)


def known(
    here: Installation, kind: str, row: dict[str, Any], *depends_on: object, answer: Callable[[], T]
) -> T:
    """What `answer` gives, or gave for the same record as it was delivered and scored; a fault is not kept.

    Args:
        kind: of question.
        row: as `record.one` gives it.
        depends_on: what else the answer depends on.
    """
    state = here.ledger.newest(row["dataset"], row["batch_id"])
    delivered = (state.fingerprint, state.validated_at) if state else ()
    record = (here.settings.ledger, row["dataset"], row["batch_id"], row["row_number"], *delivered)
    scored = (row["model_version"], row["scored_at"])
    found: T = _answered(_Question(kind, record, (*scored, *depends_on), answer))
    return found


@lru_cache(maxsize=KEPT)
def _answered(question: _Question) -> Any:
    return question.answer()
