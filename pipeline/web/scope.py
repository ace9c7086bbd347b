"""What a reviewer gets to see and to change: their datasets' records and rules, as if there were no others.

Belongs here: the check of a dataset's name between a request and the queue; every route that touches records
or rules passes here. Does not: who may do what, which is up to the host (access.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from fastapi import HTTPException, Request

from pipeline.config.dataset import Dataset
from pipeline.errors import NotReady
from pipeline.installation import Installation
from pipeline.misread import meant
from pipeline.report import listing
from pipeline.report.listing import Listing
from pipeline.review import acts, queue, record, suppression
from pipeline.review.filters import Filters
from pipeline.review.queued import Whole
from pipeline.storage.ledger import Ledger
from pipeline.web.access import known
from pipeline.web.shapes import Batched


def seen(request: Request, filters: Filters) -> Filters:
    """Return the same filters, over the datasets that the reviewer may read.

    Raises:
        NotReady: they name one that there is not, or that the reviewer may not read: that nothing is like it
            would look as if all was well.
    """
    datasets(request, filters.dataset)
    reads = known(request).reads
    return filters if reads is None else replace(filters, among=tuple(sorted(reads)))


def datasets(request: Request, dataset: str | None) -> str | frozenset[str] | None:
    """Return one dataset, or all that the reviewer may read; None for all there are.

    Raises:
        NotReady: they may not read this one, or neither queue nor ledger nor a file has it.
    """
    if dataset is None:
        return known(request).reads
    here: Installation = request.app.state.here
    held = {*queue.datasets(here.ledger), *here.ledger.datasets()}
    if not known(request).may_read(dataset) or (dataset not in held and dataset not in here.datasets()):
        raise NotReady(_no_dataset(request, dataset))
    return dataset


def batches(request: Request, choice: Batched) -> Listing:
    """Return a page of the batches that the reviewer may read.

    Raises:
        NotReady: as `datasets` does.
    """
    datasets(request, choice.dataset)
    return listing.listing(request.app.state.here, known(request).reads, **choice.model_dump())


def dataset(request: Request, name: str) -> Dataset:
    """Return one dataset by its file.

    Raises:
        NotReady: they may not read it, or it has no file here.
    """
    datasets(request, name)
    here: Installation = request.app.state.here
    if name not in here.datasets():
        raise NotReady(_no_dataset(request, name))
    return here.dataset(name)


def _no_dataset(request: Request, dataset: str) -> str:
    here: Installation = request.app.state.here
    mine = [name for name in here.datasets() if known(request).may_read(name)]
    return f"there is no dataset {dataset!r} here, or it is not yours to read: {meant(dataset, mine)}"


def one(request: Request, anomaly_id: str) -> Whole:
    """Return a record, as `record.one` does, if the reviewer may read it.

    Raises:
        NotReady: it is not in the queue, or not theirs to read.
    """
    row, reviewer = record.one(_ledger(request), anomaly_id), known(request)
    if not reviewer.may_read(row.dataset):
        raise NotReady(f"record {anomaly_id!r} is not in the queue; see `vaewatch review list`")
    return row


def write(request: Request, *names: str, otherwise: str = "") -> None:
    """Let a change to these datasets pass.

    Args:
        otherwise: the message where one of them must not be named.

    Raises:
        NotReady: the reviewer may not even read one of them.
        HTTPException: 403, they may only read it.
    """
    for name in names:
        if not known(request).may_read(name):
            raise NotReady(otherwise or _no_dataset(request, name))
        if not known(request).may_judge(name):
            raise HTTPException(403, f"you may read {name} here, not write: ask for a role that may")


def write_records(request: Request, anomaly_ids: Sequence[str]) -> None:
    """Let a change to some records pass, as `write` does; the caller finds out which records are missing."""
    missing = "a record is not in the queue (scored again since?); nothing was written"
    write(request, *queue.datasets(_ledger(request), anomaly_ids), otherwise=missing)


def act(request: Request, given: str) -> acts.Act:
    """Return an act that the reviewer may take back, as far as it is up to its datasets.

    Raises:
        NotReady: there is no such act, or it is about what they may not read.
        HTTPException: 403, they may only read it.
    """
    ledger, missing = _ledger(request), acts.no_act(given)
    write(request, *acts.datasets(ledger, given), otherwise=missing)
    if (found := acts.one(ledger, given)) is None:
        raise NotReady(missing)
    return found


def newest_act(request: Request) -> acts.Act:
    """Return the reviewer's newest act that holds, as `act` does, on datasets that they may read."""
    by = known(request).name
    if (found := acts.newest(_ledger(request), by=by, among=known(request).reads)) is None:
        raise NotReady(f"{by} has no verdict that could be taken back")
    return act(request, found)


def rules(request: Request, dataset: str | None = None) -> list[suppression.Rule]:
    """Return the suppression rules that the reviewer may read.

    Raises:
        NotReady: as `datasets` does.
    """
    datasets(request, dataset)
    found: Iterable[suppression.Rule] = suppression.rules(_ledger(request), dataset)
    return [rule for rule in found if known(request).may_read(rule.dataset)]


def write_rule(request: Request, number: int) -> None:
    """Let a change to a rule pass; the caller finds out whether there is such a rule."""
    this = [rule.dataset for rule in suppression.rules(_ledger(request)) if rule.number == number]
    write(
        request,
        *this,
        otherwise=f"there is no suppression rule {number} in force: `vaewatch review rules list` lists those that are",
    )


def _ledger(request: Request) -> Ledger:
    ledger: Ledger = request.app.state.here.ledger
    return ledger
