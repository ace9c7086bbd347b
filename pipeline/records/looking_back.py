"""Which batches another one sees through its derived columns, and which scored ones would see others now.

Belongs here: what a batch looked back on, as the ledger notes it, and which batches behind it came late, were
corrected or refused since. Pure. Does not: reading their records (accepted.py), or scoring again, which the
reader decides (docs/decisions/derived.md).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby

from pipeline.records.window import believed, fingerprint
from pipeline.storage.ledger import BatchState

NAMED = 3  # batches, or commands


def earlier(state: BatchState, batches: Iterable[BatchState], since: datetime | None) -> list[BatchState]:
    """Return batches whose records a batch's derived columns may see, in the given order.

    Batches dated too far ahead of their reading neither see others nor are seen.
    """
    last = believed(state)
    if since is None or last is None:
        return []
    return [
        batch
        for batch in batches
        if batch.n_accepted
        and batch.status != "refused"
        and batch.batch_id != state.batch_id
        and (end := believed(batch)) is not None
        and since <= end <= last
    ]


def looked_back_on(batches: Iterable[BatchState]) -> str:
    """Return sixty-four hex digits that change with the records of these batches."""
    return fingerprint(sorted(batches, key=lambda batch: batch.batch_id), (), ())


def outdated(batches: Iterable[BatchState]) -> dict[str, list[str]]:
    """Return scored batches that would look back on other records now.

    Each comes with the batches that came, changed or were refused since it was scored.

    Args:
        batches: all that there are, as the ledger has them.
    """
    known = list(batches)
    dated = sorted((end, batch.batch_id, batch) for batch in known if (end := believed(batch)))
    ends = [end for end, *_ in dated]
    found = {}
    for state in known:
        since, last, at = state.looks_since, believed(state), state.scored_at
        if state.status != "scored" or since is None or last is None or at is None:
            continue
        near = [batch for *_, batch in dated[bisect_left(ends, since) : bisect_right(ends, last)]]
        if looked_back_on(earlier(state, near, since)) != state.looked_back:
            others = (batch for batch in near if batch.batch_id != state.batch_id)
            found[state.batch_id] = [batch.batch_id for batch in others if batch.validated_at > at]
    return found


def words(behind: Sequence[str]) -> str:
    """Say what one of them looks back on, to follow its name."""
    more = f" and {len(behind) - NAMED} more" if len(behind) > NAMED else ""
    of = f"{', '.join(behind[:NAMED])}{more}" if behind else "another batch"
    return f"looks back on {of}: delivered, changed or refused after it was scored"


def notes(dataset: str, found: Mapping[str, Sequence[str]], batch_ids: Sequence[str]) -> Iterator[str]:
    """Yield a sentence for each run of neighbours: which, because of what, and how to score them again.

    Args:
        batch_ids: every batch, in order.
    """
    runs = [list(run) for is_old, run in groupby(sorted(batch_ids), key=lambda name: name in found) if is_old]
    for run in runs[:NAMED]:
        key = "..".join(dict.fromkeys((run[0], run[-1])))
        behind = list(dict.fromkeys(name for one in run for name in found[one]))
        yield f"{key} {words(behind)}; score it again: vaewatch score {dataset} {key} --force"
    if len(runs) > NAMED:
        n = sum(map(len, runs[NAMED:]))
        yield f"{n} more batches look back on others delivered, changed or refused after they were scored: vaewatch status {dataset}"
