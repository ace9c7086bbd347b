"""A dataset's newest scored batches at a glance: the headlines of pages whose flags are in doubt, how many
records are flagged in all, and where to look; also after a scoring.

Belongs here: words for a table of batches. Does not: whether one batch can be trusted (trust.py), or a
terminal (display/). Everything is read from the ledger, except what the version finds, and who took one back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from pipeline.config.dataset import Dataset
from pipeline.errors import RegistryUnreachable
from pipeline.incoming.batches import is_undated
from pipeline.installation import Installation
from pipeline.monitoring import store
from pipeline.monitoring.findings import Finding, gathered, worst
from pipeline.monitoring.store import Watched
from pipeline.report.sheet import percent
from pipeline.report.standing import flags_kept, recall, withdrawn
from pipeline.report.trust import MOST, TAKEN_BACK, doubt, found
from pipeline.storage.ledger import BatchState

DAYS_ON_END = 3  # batches that flag far more than is allowed for, from which on a cap is suggested
FEWEST = 5  # flags of a batch that anybody can look at


@dataclass(frozen=True)
class Glance:
    """The newest batches in words.

    Attributes:
        headlines: by batch_id, for batches whose flags are in doubt.
        lines: what to say of all of them.
    """

    headlines: Mapping[str, str]
    lines: tuple[str, ...] = ()


def glance(here: Installation, dataset: Dataset, most: int) -> Glance:
    """Return what to say of the scored batches: headlines of all, lines about the newest `most` of them."""
    current = here.ledger.current(dataset.name)
    back = _taken_back(here, dataset, current.values())
    known = _known(here, dataset, [one.batch_id for one in current.values() if one.status == "scored"])
    of_theirs = {
        batch_id: TAKEN_BACK
        for batch_id, found in known.items()
        if current[batch_id].model_version in back and worst(found) != "alarm"
    }
    doubted = _doubted(dataset, known)
    newest = store.newest(here.ledger, dataset.name, most, strays=False)
    scored = [one for one in newest if one.batch_id in known]
    lines = (*_in_all(dataset, scored, doubted), *(line for line in back.values() if scored))
    return Glance(doubted | of_theirs, lines)


def in_doubt(here: Installation, dataset: Dataset, scored: Iterable[str]) -> dict[str, str]:
    """Return the headlines of those scored batches whose flags are in doubt: from the ledger alone."""
    return _doubted(dataset, _known(here, dataset, scored))


def _known(here: Installation, dataset: Dataset, scored: Iterable[str]) -> dict[str, list[Finding]]:
    dated = [batch_id for batch_id in scored if not is_undated(batch_id)]
    return store.findings(here.ledger, dataset.name, dated)


def _doubted(dataset: Dataset, known: Mapping[str, Sequence[Finding]]) -> dict[str, str]:
    told = {batch_id: doubt(gathered(found, dataset)) for batch_id, found in known.items()}
    return {batch_id: headline for batch_id, headline in told.items() if headline}


def _taken_back(here: Installation, dataset: Dataset, batches: Iterable[BatchState]) -> dict[int, str]:
    """Return the versions that were rolled back and whose flags batches keep, with what to say of each.

    The registry is asked only where another version scored something later than the one that serves: after
    a promotion that is not so for long, and loading MLflow takes seconds.
    """
    serving = here.ledger.serving_version(dataset.name)
    by: dict[int, list[BatchState]] = {}
    for one in batches:
        if one.status == "scored" and one.model_version is not None:
            by.setdefault(one.model_version, []).append(one)
    first = min((one.scored_at for one in by.pop(serving or 0, []) if one.scored_at), default=None)
    later = {
        n
        for n, some in by.items()
        if first is None or any(one.scored_at and one.scored_at > first for one in some)
    }
    if serving is None or not later:
        return {}
    with suppress(RegistryUnreachable):
        versions = here.registry.versions(dataset.name)
        told = {one.version: withdrawn(one, serving) for one in versions if one.version in later}
        return {
            number: f"{why}; {flags_kept(dataset.name, {one.batch_id for one in by[number]}, number, serving)}"
            for number, why in told.items()
            if why
        }
    return {}


def _in_all(dataset: Dataset, scored: Sequence[Watched], headlines: Mapping[str, str]) -> list[str]:
    """Compare the flags with what normal records give, and say which batch to begin with."""
    if not scored:
        return []
    flagged = sum(one.measures.n_flagged for one in scored)
    expected = sum(one.measures.expected_flagged for one in scored)
    batches = "the newest batch" if len(scored) == 1 else f"{len(scored)} batches"
    lines = [f"{flagged:,} records flagged in {batches}; {_promise(dataset)} {expected:,.0f}"]
    doubted = [one for one in scored if one.batch_id in headlines]
    if doubted:
        worst = max(doubted, key=lambda one: one.measures.n_flagged - one.measures.expected_flagged)
        lines += [
            f"look first at: vaewatch report {dataset.name} {worst.batch_id}",
            f"records that are odd alike, a line a group: vaewatch review groups {dataset.name}, or Groups on the review page",
        ]
    return lines + _flood(dataset, scored)


def _promise(dataset: Dataset) -> str:
    """Name the rule that sets how many normal records are flagged."""
    flag = dataset.flag
    if flag.review_budget is not None:
        return f"the review budget of {flag.review_budget:g} a day allows for"
    if flag.error_rate is not None:
        return f"an error rate of {percent(flag.error_rate)} allows for"
    return "among normal records alone it would be"


def _flood(dataset: Dataset, scored: Sequence[Watched]) -> list[str]:
    """Say what bounds the flags of a batch, where for days on end more are flagged than is allowed for."""
    n_over = sum(map(_is_over, scored))
    if dataset.flag.cap is not None or n_over < DAYS_ON_END:
        return []
    return [
        f"{n_over} of these batches flag more than twice what is allowed for; if people cannot look at so many, set flag.cap in "
        f"{dataset.named_file} to as many a batch as they can: the most severe stay"
    ]


def _is_over(one: Watched) -> bool:
    return one.measures.n_flagged > max(2 * one.measures.expected_flagged, FEWEST)


def next_step(here: Installation, dataset: Dataset, n_flagged: Mapping[str, int]) -> str:
    """Return what to do after scoring: where flags are in doubt, look at why before looking at records.

    Args:
        n_flagged: of the batches scored just now, by batch_id.
    """
    name, dated = dataset.name, [one for one in n_flagged if not is_undated(one)]
    doubted = list(_doubted(dataset, store.findings(here.ledger, name, dated)))
    if doubted:
        worst = max(doubted, key=lambda one: n_flagged[one])
        others = f" (and of {len(doubted) - 1} more)" if doubted[1:] else ""
        alike = f"; then records that are odd alike, a line a group: vaewatch review groups {name}"
        return (
            f"see why the flags of {worst} are in doubt{others}: vaewatch report {name} {worst}"
            f"{alike if any(n_flagged.values()) else ''}"
        )
    if not any(n_flagged.values()):
        return ""
    return f"look at what is flagged: vaewatch review list {name}, or on a page: vaewatch review"


def misses_most(here: Installation, dataset: Dataset) -> str:
    """Say so if the version that serves finds less than half of the injected anomalies; else return ""."""
    number = here.ledger.serving_version(dataset.name)
    with suppress(RegistryUnreachable):
        serving = next((v for v in here.registry.versions(dataset.name) if v.version == number), None)
        share = recall(serving) if serving else None
        if serving and share is not None and share < MOST:
            look = f"vaewatch versions {dataset.name} {serving.version}"
            return f"{found(serving.version, share)} Most anomalies may be missed; of which kind: {look}"
    return ""
