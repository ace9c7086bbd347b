"""Batches as a list, the newest day first, each with the answer at the top of its page.

Belongs here: which batches, in which order, and what is told of each. Does not: the answer itself (trust.py;
the ledger keeps it when a page is written), or how a list looks (web/). No page is opened and no registry is
asked, so a list of thousands of batches is there at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Literal, cast

from pydantic import Field

from pipeline.config.dataset import Dataset
from pipeline.errors import ConfigError
from pipeline.installation import Installation
from pipeline.monitoring import store
from pipeline.monitoring.findings import Finding, gathered
from pipeline.records.window import age, day
from pipeline.report.batch import FILE
from pipeline.report.trust import Tone, trust
from pipeline.storage.ledger import BatchState, Head, Status

PAGE = 50  # batches
CONTRACT_FILE = "index.html"  # beside a batch's page: what the contract found


@dataclass(frozen=True)
class ListedBatch:
    """One batch, as its newest delivery stands."""

    dataset: str
    batch_id: str
    day: Annotated[str, Field(description="the day that it counts with, in UTC")]
    status: Status
    n_read: int
    n_accepted: int
    n_set_aside: int
    n_flagged: Annotated[int | None, Field(description="null while it is not scored")]
    model_version: int | None
    tone: Tone
    headline: Annotated[str, Field(description="the answer at the top of its page")]
    why: Annotated[str, Field(description="why it was refused, or what it waits for; else empty")]
    address: Annotated[
        str, Field(description="of its page, under the review page's; empty where there is none here")
    ]


@dataclass(frozen=True)
class Listing:
    """A page of batches.

    Attributes:
        more_after: what to give as `after` for the next page; None at the end.
        counts: how many each choice of each filter would show, the other being as it is.
    """

    batches: tuple[ListedBatch, ...]
    more_after: str | None
    counts: Mapping[Literal["dataset", "status"], Mapping[str, int]]


def listing(
    here: Installation,
    among: Collection[str] | None,
    *,
    dataset: str | None = None,
    status: Status | None = None,
    after: str | None = None,
    limit: int = PAGE,
) -> Listing:
    """Return batches, the newest day first.

    Args:
        among: the datasets that may be told of; None for all.
        after: `more_after` of the page before; one that is unknown is the beginning.
    """
    heads = sorted(here.ledger.heads(among), key=lambda one: (age(one)[0], one.dataset, one.batch_id))[::-1]
    begin = next((i for i, one in enumerate(heads, 1) if _place(one) == after), 0) if after else 0
    wanted = [one for one in heads[begin:] if dataset in {None, one.dataset} and status in {None, one.status}]
    shown = wanted[:limit]
    return Listing(
        _told(here, here.ledger.states(shown)),
        _place(shown[-1]) if len(wanted) > limit else None,
        {
            "dataset": dict(
                sorted(Counter(one.dataset for one in heads if status in {None, one.status}).items())
            ),
            "status": Counter(one.status for one in heads if dataset in {None, one.dataset}),
        },
    )


def refused_days(here: Installation, dataset: str) -> Counter[str]:
    """Return how many batches of each day stand refused, by day."""
    heads = here.ledger.heads([dataset])
    return Counter(day(one).isoformat() for one in heads if one.status == "refused")


def _place(head: Head) -> str:
    return f"{head.dataset}/{head.batch_id}"


def _told(here: Installation, states: Sequence[BatchState]) -> tuple[ListedBatch, ...]:
    by_dataset: dict[str, list[BatchState]] = {}
    for state in states:
        by_dataset.setdefault(state.dataset, []).append(state)
    told = {(one.dataset, one.batch_id): one for some in by_dataset.values() for one in _of_one(here, some)}
    return tuple(told[state.dataset, state.batch_id] for state in states)


def _of_one(here: Installation, states: Sequence[BatchState]) -> Iterator[ListedBatch]:
    """Yield what is told of some batches of one dataset."""
    name, dataset = states[0].dataset, None
    with suppress(ConfigError):  # its file is gone, or has faults
        dataset = here.dataset(name)
    serving = here.ledger.serving_version(name)
    unsaid = [one.batch_id for one in states if one.status == "scored" and one.headline is None]
    known = store.findings(here.ledger, name, unsaid) if unsaid else {}
    for state in states:
        tone, headline, why = _answer(dataset, state, known.get(state.batch_id), serving)
        yield ListedBatch(
            dataset=name,
            batch_id=state.batch_id,
            day=day(state).isoformat(),
            status=state.status,
            n_read=state.n_read,
            n_accepted=state.n_accepted,
            n_set_aside=state.n_set_aside,
            n_flagged=state.n_flagged,
            model_version=state.model_version,
            tone=tone,
            headline=headline,
            why=why,
            address=_address(here, dataset, state.batch_id) if dataset else "",
        )


def _answer(
    dataset: Dataset | None, state: BatchState, findings: Sequence[Finding] | None, serving: int | None
) -> tuple[Tone, str, str]:
    """Return tone and headline of a batch's page, and why, unless it is scored.

    Of a batch whose page was written before headlines were kept, what its findings alone say.
    """
    if state.tone is not None and state.headline is not None:
        return cast("Tone", state.tone), state.headline, ""
    if dataset is None:
        return "warn", "The file of its dataset is gone or has faults", state.reason
    said = trust(
        dataset, state, gathered(findings, dataset) if findings is not None else None, 0, serving=serving
    )
    return said.tone, said.headline, "" if state.status == "scored" else said.why


def _address(here: Installation, dataset: Dataset, batch_id: str) -> str:
    """Return where a batch's page is, or its contract's page where there is no other yet."""
    folder = here.page(dataset, batch_id)
    file = next((name for name in (FILE, CONTRACT_FILE) if (folder / name).exists()), "")
    return file and f"report/{dataset.name}/{batch_id}/{file}"
