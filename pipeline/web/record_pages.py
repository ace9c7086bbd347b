"""The page of one record, and its slower parts: each comes by itself, or as a page of its own.

Belongs here: from a record's address to what a template needs. Does not: looking things up (review/record.py,
review/compare.py, review/versions.py), or the other pages (pages.py).

The page itself is what the queue knows, and is there at once. What reads a batch or a model is a part: the
script puts it into the page as the reader comes near it; without a script there is a link.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Query, Request
from markupsafe import Markup
from starlette.responses import Response

from pipeline.errors import VaewatchError
from pipeline.installation import Installation
from pipeline.review import compare, parts, queue, record, usual, versions
from pipeline.review.filters import Filters, Place
from pipeline.review.queued import Whole
from pipeline.web import plots, scope, warmth
from pipeline.web.render import page, query_of
from pipeline.web.shapes import Paged, open_unless

MOST_COLUMNS = 14  # of neighbours

T = TypeVar("T")
router = APIRouter(include_in_schema=False)


@router.get("/record/{anomaly_id}")
def record_page(request: Request, anomaly_id: str, choice: Annotated[Paged, Query()]) -> Response:
    warmth.begin(request)
    here, filters = request.app.state.here, scope.seen(request, open_unless(choice))
    row = scope.one(request, anomaly_id)
    at = Place(row.day, row.severity, row.anomaly_score, row.anomaly_id)
    previous, following = queue.beside(here.ledger, filters, at)
    alike = Filters(dataset=row.dataset, signature=row.signature, state="open", kind="flagged")
    has_alike = row.signature and row.kind != "sampled"
    n_alike = queue.size(here.ledger, alike) if has_alike else 0
    return page(
        request,
        "record.html",
        row=row,
        place=record.place(here.ledger, row),
        plots=_plots(request, row),
        derived=_derived(request, row),
        quantities=_quantities(request, row),
        parts=parts.of_score(row),
        unnamed=parts.unnamed_share(row),
        may_write=request.state.reviewer.may_judge(row.dataset),
        previous=previous,
        following=following,
        has_alike=has_alike,
        n_alike=n_alike,
        n_versions=(n_versions := _n_versions(request, row)),
        has_versions=max(n_versions, row.model_version, here.ledger.serving_version(row.dataset) or 1) > 1,
        query=query_of(filters, after=choice.after),
        cleared=next((one for one in reversed(row.verdicts) if one.number in row.holding), None),
    )


@router.get("/record/{anomaly_id}/neighbours")
def neighbours_part(request: Request, anomaly_id: str, part: bool = False) -> Response:
    here, row = request.app.state.here, scope.one(request, anomaly_id)
    found, said = _looked(
        lambda: record.neighbours(here, here.dataset(row.dataset), row), record.Neighbours("", (), ())
    )
    given = {"found": found, "columns": found.columns[:MOST_COLUMNS], "derived": _derived(request, row)}
    return _part(request, part, "neighbours", row, "before and after", said=said, **given)


@router.get("/record/{anomaly_id}/nearest")
def nearest_part(request: Request, anomaly_id: str, part: bool = False) -> Response:
    """Show the normal records that are most like it."""
    here, row = request.app.state.here, scope.one(request, anomaly_id)
    near, said = _looked(lambda: compare.nearest(here, here.dataset(row.dataset), row), list[compare.Near]())
    return _part(request, part, "nearest", row, "against normal records", near=near, said=said)


@router.get("/record/{anomaly_id}/clearing")
def clearing_part(request: Request, anomaly_id: str, part: bool = False) -> Response:
    """Show the smallest change after which it would not have been flagged."""
    here, row = request.app.state.here, scope.one(request, anomaly_id)
    dataset = here.dataset(row.dataset)
    try:
        cleared = compare.clearing(here, dataset, row)
    except VaewatchError as fault:
        cleared = compare.Clearing((), None, str(fault))
    return _part(request, part, "clearing", row, "what would clear the flag", cleared=cleared)


@router.get("/record/{anomaly_id}/versions")
def versions_part(request: Request, anomaly_id: str, part: bool = False) -> Response:
    here, row = request.app.state.here, scope.one(request, anomaly_id)
    found, said = _looked(
        lambda: versions.scored_by(here, here.dataset(row.dataset), row), list[versions.Scored]()
    )
    return _part(
        request, part, "versions", row, "by model version", found=found, said=said, most=versions.MOST
    )


def _n_versions(request: Request, row: Whole) -> int:
    """Return how many versions will likely say how they score it, so that the page keeps room for them.

    The registry may be slow and is not asked: a training leaves a page.
    """
    trained = request.app.state.here.settings.home / "trainings" / row.dataset
    return min(versions.MOST, max(1, len(row.versions), sum(1 for _ in trained.glob("*.html"))))


def _looked(look: Callable[[], T], nothing: T) -> tuple[T, str]:
    """Return what was found, or nothing and why: the other parts of the page stand."""
    try:
        return look(), ""
    except VaewatchError as fault:
        return nothing, str(fault)


def _part(request: Request, is_part: bool, name: str, row: Whole, heading: str, **given: Any) -> Response:
    """Return a part for the script, or the same as a page of its own."""
    part = f"{name}_part.html"
    given |= {"part": part, "row": row, "heading": heading, "quantities": _quantities(request, row)}
    return page(request, part if is_part else "part.html", query="", **given)


def _plots(request: Request, row: Whole) -> list[Markup]:
    """Return one plot per reason; where the data behind it cannot be read, the words have to do."""
    here, drawn = request.app.state.here, []
    for reason in row.reasons:
        found = None
        with contextlib.suppress(VaewatchError):
            asked = [text for text in (reason.observed, plots.likely(reason)[0]) if text]
            bounds = [plots.number(end) for end in (reason.low, reason.high)]
            around = [bound for bound in bounds if bound is not None]
            dataset, column = here.dataset(row.dataset), reason.column
            found = usual.usual(here, dataset, row.batch_id, column, asked=asked, around=around)
        drawn.append(plots.usual(found, reason))
    return drawn


def _quantities(request: Request, row: Whole) -> frozenset[str]:
    """Return the columns whose whole numbers are no codes; none where the dataset's file is gone."""
    here: Installation = request.app.state.here
    with contextlib.suppress(VaewatchError):
        return here.dataset(row.dataset).quantities
    return frozenset()


def _derived(request: Request, row: Whole) -> list[record.Derivation]:
    """Return the derived columns of its reasons; none where the dataset's file is gone."""
    with contextlib.suppress(VaewatchError):
        return record.derivations(request.app.state.here.dataset(row.dataset), row)
    return []
