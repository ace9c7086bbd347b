"""The pages: what a browser asks for.

Belongs here: from an address to what a template needs. Does not: queries (review/), what forms send
(forms.py), the JSON that the script uses (api.py), one record (record_pages.py), or how a page is written
(render.py).
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from pipeline.errors import NotReady, VaewatchError
from pipeline.installation import Installation
from pipeline.report import listing, sheet
from pipeline.results import flagging
from pipeline.review import budget, disagreements, groups, queue, statistics
from pipeline.review.filters import Filters
from pipeline.review.precision import Precision
from pipeline.web import drafts, plots, scope, warmth
from pipeline.web.access import known
from pipeline.web.render import page, query_of
from pipeline.web.shapes import (
    MOST_GROUPS,
    Batched,
    Choice,
    Drafted,
    Grouped,
    Nothing,
    OneDataset,
    Paged,
    open_unless,
    read_place,
)

router = APIRouter(include_in_schema=False)
RULES = 3  # newest changes per dataset that the overview shows
Report = Literal["run.html", "index.html"]
REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'"


@router.get("/")
def queue_page(request: Request, choice: Annotated[Paged, Query()]) -> Response:
    """Show the list; whoever opens it is likely to open a record next."""
    warmth.begin(request)
    ledger, filters = request.app.state.here.ledger, scope.seen(request, open_unless(choice))
    found = queue.page(ledger, filters, after=read_place(choice.after))
    return page(
        request,
        "queue.html",
        rows=found.rows,
        more_after=found.more_after,
        after=choice.after,
        counts=queue.counts(ledger, filters),
        is_counted=not (filters.search or filters.signature),
        filters=filters,
        kept=_asked(choice, filters),
        query=query_of(filters, after=choice.after),
    )


@router.get("/batches")
def batches_page(request: Request, choice: Annotated[Batched, Query()]) -> Response:
    """Show how each night went, and the way to its page."""
    found = scope.batches(request, choice)
    return page(
        request,
        "batches.html",
        batches=found.batches,
        more_after=found.more_after,
        counts=found.counts,
        chosen=choice.model_dump(exclude={"after", "limit"}),
        after=choice.after,
        query="",
    )


@router.get("/metrics")
def metrics_page(request: Request) -> Response:
    """Give Prometheus the metrics of the datasets that the reviewer may read, behind the records' guard."""
    from pipeline.report.metrics import exposition

    text = exposition(request.app.state.here, only=known(request).reads)
    return PlainTextResponse(text, media_type="text/plain; version=0.0.4")


@router.get("/report/{dataset}/{batch_id}/{page}")
def report_page(request: Request, dataset: str, batch_id: str, page: Report) -> Response:
    """Show a batch's page or its contract's, as they lie on disk, with links to the records."""
    here = request.app.state.here
    scope.datasets(request, dataset)
    if here.ledger.newest(dataset, batch_id) is None:
        raise NotReady(f"{dataset}: batch {batch_id!r} was never validated")
    file = here.page(here.dataset(dataset), batch_id) / page
    if not file.exists():
        raise NotReady(
            f"{dataset} {batch_id} has no such page yet; `vaewatch report {dataset} {batch_id}` writes it"
        )
    html = sheet.linked(file.read_text(encoding="utf-8"), request.scope.get("root_path", ""))
    return HTMLResponse(html, headers={"Content-Security-Policy": REPORT_POLICY})


@router.get("/training/{dataset}/{training_key}")
@router.get("/trainings/{dataset}/{training_key}.html")  # as a batch's page links to it on disk
def training_page(
    request: Request, dataset: str, training_key: Annotated[str, Path(pattern="^[0-9a-f]+$")]
) -> Response:
    """Show the page of a training, as it lies on disk."""
    here = request.app.state.here
    scope.datasets(request, dataset)
    file = here.training_page(here.dataset(dataset), training_key) if dataset in here.datasets() else None
    if file is None or not file.exists():
        raise NotReady(f"{dataset}: training {training_key[:12]} has no page here, or has been pruned")
    return HTMLResponse(file.read_bytes(), headers={"Content-Security-Policy": REPORT_POLICY})


@router.get("/disagreements/{dataset}")
def disagreements_page(request: Request, dataset: str, _: Annotated[Nothing, Query()]) -> Response:
    """Show records that only the challenger or the champion flags, as the newest evaluation kept them."""
    found = disagreements.newest(request.app.state.here, scope.dataset(request, dataset))
    return page(request, "disagreements.html", dataset=dataset, found=found, query="")


@router.get("/groups")
def groups_page(request: Request, choice: Annotated[Grouped, Query()]) -> Response:
    ledger = request.app.state.here.ledger
    filters = scope.seen(request, replace(choice.filters(), state="open", kind="flagged"))
    alike = filters.without("kind")
    return page(
        request,
        "groups.html",
        groups=groups.groups(ledger, alike, limit=choice.limit),
        size=groups.size(ledger, alike),
        more=MOST_GROUPS,
        part={name: value for name in groups.PART if (value := getattr(filters, name))},
        counts=queue.counts(ledger, filters),
        filters=filters,
        query=query_of(filters),
    )


@router.get("/overview")
def overview_page(request: Request, choice: Annotated[OneDataset, Query()]) -> Response:
    """Show what verdicts add up to."""
    here, dataset = request.app.state.here, choice.dataset
    ledger = here.ledger
    names = sorted(name for name in queue.datasets(ledger) if known(request).may_read(name))
    of = scope.datasets(request, dataset)
    chosen = [dataset] if dataset else names
    each = {name: statistics.review(ledger, name) for name in chosen} if len(chosen) > 1 else {}
    found = statistics.review(ledger, of)
    refused = {name: listing.refused_days(here, name) for name in chosen}
    days = {name: each.get(name, found).days for name in chosen}
    days = {name: statistics.through(some, refused[name]) for name, some in days.items()}
    return page(
        request,
        "overview.html",
        found=found,
        each=each,
        headline=found.headline(chosen[0]) if len(chosen) == 1 else None,
        budgets=_budgets(here, chosen),
        rules={name: flagging.changes(ledger, name)[:RULES] for name in chosen},
        compared=_compared(here, chosen),
        dataset=dataset,
        datasets=names,
        per_day={name: plots.per_day(some, refused[name]) for name, some in days.items()},
        has_refused=any(day.day in refused[name] for name, some in days.items() for day in some),
        precision=plots.shares([
            (_labelled(share, several=len(chosen) > 1, serves=found.serves(share)), share)
            for share in found.precision
        ]),
        query="",
    )


def _labelled(share: Precision, *, several: bool, serves: bool) -> str:
    """Name a version, short enough for a plot on a small screen; its dataset only where there are several."""
    version = f"v{share.model_version}{', serves' if serves else ''}"
    return f"{share.dataset} {version}" if several else version


@router.get("/rules")
def rules_page(request: Request, given: Annotated[Drafted, Query()]) -> Response:
    """Show suppression rules, and a draft with what it would have hidden."""
    if not given.dataset:
        return drafts.answer(request)
    scope.datasets(request, given.dataset)
    typed = (given.dataset, given.signature, given.column, given.value, given.ends_on, given.note)
    return drafts.answer(request, drafts.typed(*typed))


def _budgets(here: Any, names: list[str]) -> dict[str, budget.Suggestion | budget.TooFew]:
    """Return what verdicts suggest, or why they do not, for each dataset that still has its file."""
    found = {}
    for name in names:
        with contextlib.suppress(VaewatchError):
            if suggestion := budget.suggested(here, here.dataset(name)):
                found[name] = suggestion
    return found


def _compared(here: Installation, names: list[str]) -> list[str]:
    """Return the datasets that have had a second version, so that two may have been compared.

    The registry may be slow and is not asked: version numbers are never reused, and a training leaves a page.
    """
    serving = {name: here.ledger.serving_version(name) for name in names}
    pages = here.settings.home / "trainings"
    return [
        name
        for name, version in serving.items()
        if version is not None and (version > 1 or len(list((pages / name).glob("*.html"))) > 1)
    ]


def _asked(choice: Choice, filters: Filters) -> dict[str, Any]:
    """Return what the search form sends beside its own fields: the state only where it was asked for.

    The list shows open records by default; a search is for any record.
    """
    own = {"search", "since", "until", "state"}
    kept = {name: value for name, value in filters.chosen().items() if name not in own}
    if choice.state is not None and (choice.state != "open" or filters.search or filters.suppressed):
        kept["state"] = choice.state
    return kept
