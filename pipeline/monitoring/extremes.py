"""Records that score far beyond anything in the earlier batches.

Belongs here: when several records of a batch are such, and the words. Pure. Does not: how many records score
high (judgement.py's flags and tail): a few broken values change no share.

A batch's highest score says little: scores have heavy tails, and somewhere a record is the oddest so far. So
several must agree. Of n records with a Pareto tail of index a, the fifth-highest is beyond x with a chance
that falls like x to the power of -5a (David & Nagaraja 2003, order statistics), so that chance seldom takes
it to a multiple of all before.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from pipeline.config.dataset import Dataset
from pipeline.detection.measures import MOST_HIGHEST, Measures
from pipeline.monitoring.findings import EXTREME, Finding
from pipeline.monitoring.history import FEWEST_EARLIER, MOST_EARLIER, Past
from pipeline.numerals import number

SEVERAL = 5  # records
TIMES = 5.0  # as far from normal records' median as several records of any earlier batch
SELDOM = 0.1  # share of the earlier batches with the same finding; more of them are usual
NAMED = 3  # columns


def is_compared(now: Measures, past: Sequence[Past]) -> bool:
    """Return whether the highest scores of a batch and of enough earlier ones are on record."""
    return now.reach(SEVERAL) is not None and len(_known(past)) >= FEWEST_EARLIER


def extremes(now: Measures, past: Sequence[Past], dataset: Dataset, batch_id: str) -> Iterator[Finding]:
    """Report several records that score far beyond several of any earlier batch.

    Versions score on different scales: scores are compared by their distance from the median of normal
    records, in the distance of the score that one normal record in a hundred exceeds. A batch that is larger
    than the earlier ones needs as many more of such records. Earlier batches with the same finding do not
    count unless they are many.
    """
    known = earlier = _known(past)
    if now.normal is None or len(known) < FEWEST_EARLIER:
        return
    untold = [one for one in known if all(finding.key != EXTREME for finding in one.findings)]
    if len(known) - len(untold) <= SELDOM * len(known):
        earlier = untold
    farthest = max(1.0, *(one.measures.reach(SEVERAL) or 0.0 for one in earlier))
    larger = now.n_records / max(one.measures.n_records for one in earlier)
    needed = min(MOST_HIGHEST, math.ceil(SEVERAL * max(1.0, larger)))
    distance = now.reach(needed)
    if distance is None or distance <= TIMES * farthest:
        return
    middle, rare = now.normal
    at_most = middle + farthest * (rare - middle)
    beyond = [score for score in now.highest if score > middle + TIMES * farthest * (rare - middle)]
    n = f"{len(beyond)}{' or more' * (len(beyond) == MOST_HIGHEST)}"
    of = "any" if len(earlier) == len(known) else f"{len(earlier)}"
    what = (
        f"{n} records score far beyond {of} of the {len(known)} batches before: {number(beyond[-1])} nats and more, where "
        f"no {SEVERAL} records of a batch scored more than {number(at_most)}"
        f"{_columns(now.highest_by[: len(beyond)], dataset)}"
    )
    step = (
        "look at them first: a stuck or broken sensor, another fault at the source, or an event? vaewatch review list "
        f"{dataset.name} --batch {batch_id}"
    )
    yield Finding(EXTREME, "warning", what, step, value=distance, usual=farthest, allowed=TIMES * farthest)


def _known(past: Sequence[Past]) -> list[Past]:
    return [one for one in past[-MOST_EARLIER:] if one.measures.reach(SEVERAL) is not None]


def _columns(leading: Sequence[str], dataset: Dataset) -> str:
    """Name the delivered columns behind the first reasons."""
    behind = Counter(" and ".join(dataset.sources([name])) or name for name in leading if name)
    if len(behind) == 1 and behind.total() == len(leading):
        return f"; all in {next(iter(behind))}"
    named = ", ".join(f"{name} ({n})" for name, n in behind.most_common(NAMED))
    return f"; most in {named}" if named else ""
