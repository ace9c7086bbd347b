"""The pages: what a browser asks for, and what its forms send where there is no script.

Belongs here: from an address to a template's words and back. Does not: queries (the package above), or the JSON that
the script speaks (api.py). A form's answer is a redirect to the page it came from, so that loading again sends nothing.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlencode

from fastapi import APIRouter, Form, Path, Query, Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from pydantic import Field
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from pipeline.errors import NotReady, VaewatchError
from pipeline.review import budget, compare, groups, judging, queue, record, statistics, suppression, versions
from pipeline.review.queue import Filters, Place
from pipeline.review.web import plots, scope, words
from pipeline.review.web.access import Known, known
from pipeline.review.web.api import LARGEST, Choice, Day, Id, Number, Paged, Text, read_place
from pipeline.review.web.words import FACET_NAMES, VERDICT_NAMES, WORDS
from pipeline.verdicts import OPINIONS, Opinion

router = APIRouter(include_in_schema=False)
GROUPED_DAYS, ALL_DAYS = 30, "0001-01-01"
LONGEST_IN_RECORD = 2000  # characters
Page = Literal["queue", "record", "groups", "rules"]
Report = Literal["run.html", "index.html"]
REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'"
Said = Annotated[Text, Form()]
Note = Annotated[Text, Field(max_length=judging.LONGEST_NOTE), Form()]
Pairs = Annotated[list[Text] | None, Form()]


@router.get("/")
def queue_page(request: Request, choice: Annotated[Paged, Query()]) -> Response:
    """The list."""
    ledger, filters = request.app.state.here.ledger, scope.seen(request, _open_unless(choice))
    found = queue.page(ledger, filters, after=read_place(choice.after))
    return _page(
        request,
        "queue.html",
        rows=found.rows,
        more_after=found.more_after,
        after=choice.after,
        counts=queue.counts(ledger, filters),
        total=None if filters.search or filters.signature else queue.total(ledger, filters),
        filters=filters,
        kept=_asked(choice, filters),
        query=_query(filters, after=choice.after),
    )


@router.get("/metrics")
def metrics_page(request: Request) -> Response:
    """How the datasets stand that the reader may read, for Prometheus, behind the same door as the records."""
    from pipeline.monitoring.metrics import exposition

    text = exposition(request.app.state.here, only=known(request).reads)
    return PlainTextResponse(text, media_type="text/plain; version=0.0.4")


@router.get("/report/{dataset}/{batch_id}/{page}")
def report_page(request: Request, dataset: str, batch_id: str, page: Report) -> Response:
    """The run's page of a batch, and its contract's, as they lie on disk."""
    here = request.app.state.here
    scope.datasets(request, dataset)
    if dataset not in here.datasets() or here.ledger.newest(dataset, batch_id) is None:
        raise NotReady(f"{dataset}: batch {batch_id!r} was never validated")
    file = here.page(here.dataset(dataset), batch_id) / page
    if not file.exists():
        raise NotReady(
            f"{dataset} {batch_id} has no such page yet; `vaewatch report {dataset} {batch_id}` writes it"
        )
    return HTMLResponse(file.read_bytes(), headers={"Content-Security-Policy": REPORT_POLICY})


@router.get("/record/{anomaly_id}")
def record_page(request: Request, anomaly_id: str, choice: Annotated[Paged, Query()]) -> Response:
    """One record."""
    here, filters = request.app.state.here, scope.seen(request, _open_unless(choice))
    row = scope.one(request, anomaly_id)
    place = Place(row["day"], row["severity"], row["anomaly_id"])
    previous, following = queue.beside(here.ledger, filters, place)
    alike = Filters(dataset=row["dataset"], signature=row["signature"], state="open", kind="flagged")
    has_alike = row["signature"] and row["kind"] != "sampled"
    n_alike = queue.size(here.ledger, alike) if has_alike else 0
    return _page(
        request,
        "record.html",
        row=row,
        plots=_plots(request, row),
        may_write=request.state.reviewer.may_judge(row["dataset"]),
        previous=previous,
        following=following,
        has_alike=has_alike,
        n_alike=n_alike,
        query=_query(filters, after=choice.after),
        cleared=next((one for one in reversed(row["verdicts"]) if one["number"] in row["holding"]), None),
    )


@router.get("/record/{anomaly_id}/neighbours")
def neighbours_part(request: Request, anomaly_id: str, part: bool = False) -> Response:
    """Records around one in time: a part that the script puts into the record's page, or a page of its own."""
    here = request.app.state.here
    row = scope.one(request, anomaly_id)
    dataset = here.dataset(row["dataset"])
    found = record.neighbours(here, dataset, row)
    known = {*dataset.key, *dataset.entity}  # said already, once
    first = [dataset.time, *(reason["column"] for reason in row["reasons"])]
    columns = [
        name
        for name in dict.fromkeys([*first, *row["record"]])
        if name in row["record"] and name not in known
    ][:14]
    template = "neighbours_part.html" if part else "neighbours.html"
    return _page(request, template, row=row, found=found, columns=columns, query="")


@router.get("/record/{anomaly_id}/compare")
def compare_part(request: Request, anomaly_id: str, part: bool = False) -> Response:
    """Nearest normal records and the smallest change: looked up when asked for, as it reads the batch and the model."""
    here = request.app.state.here
    row = scope.one(request, anomaly_id)
    dataset = here.dataset(row["dataset"])
    try:
        cleared = compare.clearing(here, dataset, row) if row["kind"] == "flagged" else None
    except VaewatchError as fault:
        cleared = compare.Clearing((), 0.0, str(fault))
    template = "compare_part.html" if part else "compare.html"
    return _page(
        request, template, row=row, near=compare.nearest(here, dataset, row), cleared=cleared, query=""
    )


@router.get("/record/{anomaly_id}/versions")
def versions_part(request: Request, anomaly_id: str, part: bool = False) -> Response:
    """How the registered model versions score a record now: asked for, as each of them is loaded."""
    here, said = request.app.state.here, ""
    row = scope.one(request, anomaly_id)
    found: list[versions.Scored] = []
    try:
        found = versions.scored_by(here, here.dataset(row["dataset"]), row)
    except VaewatchError as fault:
        said = str(fault)
    template = "versions_part.html" if part else "versions.html"
    return _page(request, template, row=row, found=found, said=said, most=versions.MOST, query="")


@router.get("/groups")
def groups_page(request: Request, choice: Annotated[Choice, Query()]) -> Response:
    """Records that are odd alike."""
    ledger, since = request.app.state.here.ledger, choice.since
    newest = queue.newest_day(ledger, scope.datasets(request, choice.dataset))
    if since is None and newest:
        since = (date.fromisoformat(newest) - timedelta(days=GROUPED_DAYS - 1)).isoformat()
    filters = scope.seen(request, Filters(dataset=choice.dataset, since=since, state="open", kind="flagged"))
    found = groups.groups(ledger, filters.without("kind"))
    return _page(
        request,
        "groups.html",
        groups=found,
        counts=queue.counts(ledger, filters),
        filters=filters,
        query=_query(filters),
    )


@router.get("/overview")
def overview_page(request: Request, dataset: str | None = None) -> Response:
    """What verdicts add up to."""
    here = request.app.state.here
    ledger = here.ledger
    found = statistics.review(ledger, scope.datasets(request, dataset))
    known = queue.counts(ledger, scope.seen(request, Filters()))["dataset"]
    sampled = scope.seen(request, Filters(dataset=dataset, kind="sampled", state="open"))
    return _page(
        request,
        "overview.html",
        found=found,
        budgets=_budgets(here, [dataset] if dataset else list(known)),
        dataset=dataset,
        datasets=known,
        per_day=plots.per_day(found.days),
        precision=plots.shares([
            (f"{name} v{version}", share) for (name, version), share in found.precision.items()
        ]),
        n_sampled_open=queue.total(ledger, sampled),
        query="",
    )


@router.get("/rules")
def rules_page(
    request: Request,
    dataset: str = "",
    signature: str = "",
    column: Annotated[list[str] | None, Query()] = None,
    value: Annotated[list[str] | None, Query()] = None,
    ends_on: str = "",
    note: Annotated[str, Query(max_length=judging.LONGEST_NOTE)] = "",
) -> Response:
    """Suppression rules, and a draft with what it would have hidden."""
    ledger = request.app.state.here.ledger
    draft, tried = None, None
    if dataset:
        scope.datasets(request, dataset)
        who = request.state.reviewer.name
        pairs = suppression.conditions(zip(column or [], value or [], strict=False))
        last = ends_on or (datetime.now(UTC).date() + timedelta(days=30)).isoformat()
        draft = suppression.Rule(dataset, signature, pairs, last, note, who)
        tried = suppression.preview(ledger, draft)
    return _page(
        request,
        "rules.html",
        rules=scope.rules(request),
        today=datetime.now(UTC).date().isoformat(),
        draft=draft,
        tried=tried,
        columns=_columns(request.app.state.here, dataset),
        query="",
    )


@router.post("/verdicts")
def say(
    request: Request,
    reviewer: Known,
    verdict: Annotated[Opinion, Form()],
    anomaly_id: Annotated[list[Id] | None, Form()] = None,
    note: Note = "",
    settle: Annotated[bool, Form()] = False,
    page: Annotated[Page, Form()] = "queue",
    query: Annotated[str, Form()] = "",
) -> Response:
    """A verdict from a form, on one record or on those that were ticked."""
    if not anomaly_id:
        return _back(request, page, query, told="tick the records that the verdict is about")
    scope.write_records(request, anomaly_id)
    given = judging.give(
        request.app.state.here.ledger, anomaly_id, verdict, by=reviewer.name, note=note, settle=settle
    )
    return _back(request, page, query, anomaly_id[0], act=given.act, told=_sentence(given, verdict))


@router.post("/groups/verdicts")
def say_of_group(
    request: Request,
    reviewer: Known,
    verdict: Annotated[Opinion, Form()],
    dataset: Said,
    n: Annotated[Number, Form()],
    signature: Said = "",
    since: Annotated[Day | Literal[""], Form()] = "",
    query: Annotated[str, Form()] = "",
) -> Response:
    """A verdict on a whole group."""
    scope.write(request, dataset)
    group = Filters(dataset=dataset, signature=signature, since=since or None)
    given = judging.give_group(request.app.state.here.ledger, group, verdict, by=reviewer.name, n=n)
    return _back(request, "groups", query, act=given.act, told=_sentence(given, verdict))


@router.post("/undo")
def undo(
    request: Request,
    reviewer: Known,
    act: Said = "",
    page: Annotated[Page, Form()] = "queue",
    query: Annotated[str, Form()] = "",
    anomaly_id: Annotated[str, Form()] = "",
) -> Response:
    """Take an act back; by default one's newest."""
    done = judging.undo(request.app.state.here.ledger, scope.act(request, act), by=reviewer.name)
    n = len(done.anomaly_ids)
    return _back(request, page, query, anomaly_id, told=f"withdrawn: {n} verdict{'s' * (n != 1)}")


@router.post("/rules")
def save_rule(
    request: Request,
    reviewer: Known,
    dataset: Said,
    signature: Said = "",
    column: Pairs = None,
    value: Pairs = None,
    ends_on: Said = "",
    note: Note = "",
) -> Response:
    """Keep a suppression rule."""
    pairs = suppression.conditions(zip(column or [], value or [], strict=False))
    scope.write(request, dataset)
    rule = suppression.Rule(dataset, signature, pairs, ends_on, note, reviewer.name)
    kept = suppression.save(request.app.state.here.ledger, rule)
    return _back(request, "rules", "", told=f"rule {kept.number} holds until {kept.ends_on}")


@router.post("/rules/{number}/end")
def end_rule(request: Request, reviewer: Known, number: Annotated[int, Path(ge=1, le=LARGEST)]) -> Response:
    """End a suppression rule now."""
    scope.write_rule(request, number)
    n = suppression.end(request.app.state.here.ledger, number, by=reviewer.name)
    return _back(request, "rules", "", told=f"rule {number} is ended; {n} records are in the queue again")


def fault(request: Request, status: int, message: str) -> Response:
    """A fault as a page, with what to do next."""
    return _page(request, "fault.html", status=status, message=message, query="")


def _columns(here: Any, dataset: str) -> list[str]:
    """What a rule's conditions may be about; nothing where the dataset has no file."""
    with contextlib.suppress(VaewatchError):
        return list(here.dataset(dataset).columns) if dataset else []
    return []


def _budgets(here: Any, names: list[str]) -> dict[str, budget.Suggestion]:
    """What verdicts suggest for each dataset that still has its file."""
    found = {}
    for name in names:
        with contextlib.suppress(VaewatchError):
            if suggestion := budget.suggested(here, here.dataset(name)):
                found[name] = suggestion
    return found


def _open_unless(choice: Choice) -> Filters:
    """Open records are what a reviewer comes for: all states only where they are asked for."""
    filters = choice.filters()
    asked = choice.state is not None or choice.search is not None or choice.suppressed
    return filters if asked else Filters(**{**vars(filters), "state": "open"})


def _query(filters: Filters, **more: Any) -> str:
    """Filters as an address holds them, without the state that a page shows unasked: see `_open_unless`."""
    unasked = None if filters.search or filters.suppressed else "open"
    chosen = {**filters.chosen(), "state": None if filters.state == unasked else filters.state or "any"}
    return urlencode({name: value for name, value in {**chosen, **more}.items() if value is not None})


def _asked(choice: Choice, filters: Filters) -> dict[str, Any]:
    """What the search form sends beside its own fields: the state only where it was asked for.

    The list shows open records unasked; a search is for any record.
    """
    own = {"search", "since", "until", "state"}
    kept = {name: value for name, value in filters.chosen().items() if name not in own}
    if choice.state is not None and (choice.state != "open" or filters.search or filters.suppressed):
        kept["state"] = choice.state
    return kept


def _back(
    request: Request, page: Page, query: str, anomaly_id: str = "", *, told: str, act: str = ""
) -> Response:
    """To the page that a form came from. It is named, not given as an address: a stranger's cannot be."""
    kept = [(name, value) for name, value in parse_qsl(query) if name in {*Choice.model_fields, "after"}]
    path = {"queue": "/", "groups": "/groups", "rules": "/rules", "record": f"/record/{anomaly_id[:32]}"}[
        page
    ]
    sent = [*kept, ("told", told), *([("act", act)] if act else [])]
    return RedirectResponse(f"{request.scope.get('root_path', '')}{path}?{urlencode(sent)}", 303)


def _sentence(given: judging.Judged, verdict: str) -> str:
    n = len(given.anomaly_ids)
    clash = f"; reviewers differ on {len(given.conflicts)}" if given.conflicts else ""
    return (
        f"{VERDICT_NAMES[verdict]}: {n} record{'s' * (n != 1)}{clash}"
        if n
        else "said before: nothing changed"
    )


def _plots(request: Request, row: dict[str, Any]) -> list[Markup]:
    """One plot a reason; where the data behind it cannot be read, the words have to do."""
    here, drawn = request.app.state.here, []
    for reason in row["reasons"]:
        try:
            dataset = here.dataset(row["dataset"])
            usual = record.usual(here, dataset, row["batch_id"], reason["column"])
        except VaewatchError:
            usual = None
        drawn.append(plots.usual(usual, reason))
    return drawn


def _page(request: Request, template: str, *, query: str, **given: Any) -> Response:
    state = request.state
    reviewer = getattr(state, "reviewer", None)
    common = {
        "base": request.scope.get("root_path", ""),
        "path": request.url.path.removeprefix(request.scope.get("root_path", "")),
        "stamp": request.app.state.stamp,
        "reviewer": reviewer,
        "csrf": getattr(state, "csrf", ""),
        "told": request.query_params.get("told", "")[:300],
        "act": request.query_params.get("act", "")[:64],
        "query": query,
        "address": request.url.query,
        "may_write": reviewer is not None and reviewer.may_write,
        "may_judge": reviewer.may_judge if reviewer is not None else None,
    }
    status = given.get("status", 200)
    return HTMLResponse(_templates.get_template(template).render(common | given), status)


def _templated() -> Environment:
    made = Environment(
        loader=PackageLoader("pipeline.review.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "number": words.number,
        "short": words.short,
        "percent": words.percent,
        "rounded": words.rounded,
        "cell": words.cell,
        "ago": words.ago,
        "signature": words.signature,
        "address": lambda given: urlencode({
            name: value for name, value in given.items() if value is not None
        }),
    }
    made.globals |= {
        "OPINIONS": OPINIONS,
        "VERDICTS": VERDICT_NAMES,
        "FACETS": FACET_NAMES,
        "WORDS": WORDS,
        "GROUPED_DAYS": GROUPED_DAYS,
        "ALL_DAYS": ALL_DAYS,
        "IN_RECORD": LONGEST_IN_RECORD,
        "changed": lambda filters, **changes: _query(Filters(**{**vars(filters), **changes})),
        "paged": lambda filters, place: _query(filters, after=str(place)),
        "share_text": statistics.share_text,
        "recall_text": statistics.recall_text,
    }
    return made


_templates = _templated()
