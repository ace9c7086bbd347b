"""What the pages' forms send where there is no script: verdicts, their undoing, rules.

Belongs here: from a form to the work and back to the page that it came from, by a redirect, so that loading
again sends nothing. Does not: the pages (pages.py), or the JSON that the script speaks (api.py).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal
from urllib.parse import parse_qsl, urlencode

from fastapi import APIRouter, Form, Path, Query, Request
from pydantic import Field
from starlette.responses import RedirectResponse, Response

from pipeline.errors import ConfigError
from pipeline.records.verdicts import Opinion
from pipeline.review import judging, suppression
from pipeline.review.filters import Filters
from pipeline.web import drafts, scope
from pipeline.web.access import Known
from pipeline.web.shapes import LARGEST, Choice, Day, Id, Number, Text
from pipeline.web.words import VERDICT_NAMES

router = APIRouter(include_in_schema=False)
Page = Literal["queue", "record", "groups", "rules"]
Said = Annotated[Text, Form()]
Note = Annotated[Text, Field(max_length=judging.LONGEST_NOTE), Form()]
SomeDay = Annotated[Day | Literal[""], Form()]
Pairs = Annotated[list[Text] | None, Form()]


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
    since: SomeDay = "",
    until: SomeDay = "",
    batch: Said = "",
    query: Annotated[str, Form()] = "",
) -> Response:
    """A verdict on a whole group, or on that part of it which the list showed."""
    scope.write(request, dataset)
    group = Filters(
        dataset=dataset, signature=signature, since=since or None, until=until or None, batch=batch or None
    )
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
    shown: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """Keep a suppression rule. One with a slip in it goes back to its draft, and so does one that would hide
    something else than the page showed: `shown` says what that was.
    """
    scope.write(request, dataset)
    here = request.app.state.here
    draft = drafts.typed(dataset, signature, column or [], value or [], ends_on, note)
    try:
        rule = drafts.rule_of(here, draft, by=reviewer.name)
        if shown != drafts.shown_as(rule):
            return drafts.answer(request, replace(draft, is_changed=True))
        tried = suppression.preview(here.ledger, rule)
        kept = suppression.save(here.ledger, rule)
    except ConfigError as fault:
        return drafts.answer(request, replace(draft, slip=str(fault)))
    nothing = "" if tried.n_hidden else f"; {tried.text}"
    return _back(request, "rules", "", told=f"rule {kept.number} holds until {kept.ends_on}{nothing}")


@router.post("/rules/{number}/end")
def end_rule(request: Request, reviewer: Known, number: Annotated[int, Path(ge=1, le=LARGEST)]) -> Response:
    """End a suppression rule now."""
    scope.write_rule(request, number)
    n = suppression.end(request.app.state.here.ledger, number, by=reviewer.name)
    return _back(request, "rules", "", told=f"rule {number} is ended; {n} records are in the queue again")


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
