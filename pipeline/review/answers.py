"""Answers that are found once, and again only when something that they depend on has changed.

Belongs here: when an answer still holds. Does not: how one is found (compare.py, versions.py, budget.py).
Each process keeps its own; what an answer depends on is read anew each time, so that none misses what another
process wrote.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeVar

from pipeline.installation import Installation
from pipeline.review.queued import Whole

KEPT = 512  # answers per process; the least recently asked go first
T = TypeVar("T")


@dataclass(frozen=True)
class _Question:
    """What an answer depends on; how it is found is not compared."""

    kind: str
    depends_on: tuple[object, ...]
    answer: Callable[[], Any] = field(compare=False)


def kept(here: Installation, kind: str, *depends_on: object, answer: Callable[[], T]) -> T:
    """Return what `answer` gives, or gave for the same question; a fault is not kept.

    Args:
        kind: of question.
        depends_on: all that the answer depends on, read before it is found: the answer may be newer than
            that, never older.
    """
    found: T = _answered(_Question(kind, (here.settings.ledger, *depends_on), answer))
    return found


def known(here: Installation, kind: str, row: Whole, *depends_on: object, answer: Callable[[], T]) -> T:
    """Return the same as `kept`, for one record as it was delivered and scored.

    Args:
        kind: of question.
        depends_on: what else the answer depends on.
    """
    state = here.ledger.newest(row.dataset, row.batch_id)
    delivered = (state.fingerprint, state.validated_at) if state else ()
    record = (row.dataset, row.batch_id, row.row_number, *delivered)
    scored = (row.model_version, row.scored_at)
    return kept(here, kind, *record, *scored, *depends_on, answer=answer)


@lru_cache(maxsize=KEPT)
def _answered(question: _Question) -> Any:
    return question.answer()
