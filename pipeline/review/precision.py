"""Of what a model version flagged and people judged, how much was worth the time; and which version to name.

Belongs here: precision by version, and the headline made of it. Does not: intervals (estimates.py), or what
else verdicts add up to (statistics.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import sqlalchemy as sa
from pydantic import Field

from pipeline.review.estimates import FEWEST_TOLD, Share, share_of, witnesses
from pipeline.review.filters import Datasets, of
from pipeline.storage.ledger_schema import serving
from pipeline.storage.review_schema import version_tallies


@dataclass(frozen=True)
class Precision(Share):
    """Of the flagged records of a model version that were judged, those that were worth the time.

    People begin with the most severe, so it is not the share of all that are flagged. Records of one
    signature may have one cause and one verdict: the interval counts them by how alike their verdicts are.
    """

    dataset: str
    model_version: int
    n_groups: Annotated[int, Field(description="signatures that the judged records have")]
    witnesses: Annotated[
        float, Field(description="independent records that say as much; the interval counts these")
    ]

    @property
    def is_untold(self) -> bool:
        """Whether too few independent records were judged for a headline."""
        return self.witnesses < FEWEST_TOLD


@dataclass(frozen=True)
class Headline:
    """What is said first of a dataset's precision.

    Attributes:
        version: the one that serves; the newest that was judged, where none is known to serve.
        is_serving: whether it is known to serve.
        share: of what it flagged; None where none of that is judged.
        beside: the newest other version of which a value can be told, where of this one none can.
    """

    version: int
    is_serving: bool
    share: Precision | None
    beside: Precision | None


def headline(found: Sequence[Precision], serves: int | None) -> Headline | None:
    """Return what to say first of one dataset's versions; None where nothing is judged.

    The highest version is not always the one that serves: a rollback brings an earlier one back.

    Args:
        found: in order of version.
    """
    if not found:
        return None
    version = found[-1].model_version if serves is None else serves
    share = next((one for one in found if one.model_version == version), None)
    told = [one for one in found if not (one.is_untold or one.is_wide)]
    return Headline(version, serves is not None, share, None if share in told or not told else told[-1])


def by_version(connection: sa.Connection, dataset: Datasets) -> tuple[Precision, ...]:
    """Return each version's precision on the records that *it* flagged, whoever scored them since."""
    columns = version_tallies.c
    alike = (columns.dataset, columns.model_version, columns.signature)
    query = sa.select(*alike, sa.func.sum(columns.n_hits), sa.func.sum(columns.n_judged)).group_by(*alike)
    groups: dict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
    for name, version, _, hits, n in connection.execute(of(query, version_tallies, dataset)):
        groups[name, version].append((int(hits), int(n)))
    return tuple(_grouped(*key, groups[key]) for key in sorted(groups))


def _grouped(dataset: str, model_version: int, groups: Sequence[tuple[int, int]]) -> Precision:
    hits, n = (sum(counts) for counts in zip(*groups, strict=True))
    worth = witnesses(groups)
    share = share_of(hits, n, witnesses=worth)
    return Precision(
        **vars(share), dataset=dataset, model_version=model_version, n_groups=len(groups), witnesses=worth
    )


def serving_versions(connection: sa.Connection, dataset: Datasets) -> dict[str, int]:
    """Return, by dataset, the champion as last seen here."""
    query = sa.select(serving.c.dataset, serving.c.model_version).where(serving.c.model_version.is_not(None))
    rows = connection.execute(of(query, serving, dataset).order_by(serving.c.dataset))
    return {row.dataset: row.model_version for row in rows}
