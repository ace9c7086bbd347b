"""What the pages' forms send where there is no script: verdicts, undoing them, claims, rules.

Belongs here: from a form to the work and back to the page that it came from, by a redirect, so that reloading
sends nothing again. Does not: the pages (pages.py), or the JSON that the script uses (api.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Literal
from urllib.parse import parse_qsl, urlencode

from fastapi import APIRouter, Form, Path, Query, Request
from pydantic import Field
from starlette.responses import RedirectResponse, Response

from pipeline.errors import ClaimedByAnother, ConfigError
from pipeline.records.verdicts import Opinion, in_words
from pipeline.review import claims, effects, judging, queue, suppression
from pipeline.review.filters import Filters
from pipeline.web import drafts, scope, words
from pipeline.web.access import Known
from pipeline.web.render import page as write_page
from pipeline.web.shapes import LARGEST, Day, Grouped, Id, Note, Number, Paged, Text
from pipeline.web.words import MANY, VERDICT_NAMES

router = APIRouter(include_in_schema=False)
Page = Literal["queue", "record", "groups", "rules"]
Said = Annotated[Text, Form()]
FormNote = Annotated[Note, Field(pattern=r"^[^\x00]*$"), Form()]
SomeDay = Annotated[Day | Literal[""], Form()]
Pairs = Annotated[list[Text] | None, Form()]


@router.post("/verdicts")
def say(
    request: Request,
    reviewer: Known,
    verdict: Annotated[Opinion, Form()],
    anomaly_id: Annotated[list[Id] | None, Form()] = None,
    note: FormNote = "",
    settle: Annotated[bool, Form()] = False,
    anyway: Annotated[bool, Form()] = False,
    page: Annotated[Page, Form()] = "queue",
    query: Annotated[str, Form()] = "",
) -> Response:
    """Give a verdict from a form, on one record or on the ticked ones."""
    if not anomaly_id:
        return _back(request, page, query, told="tick the records that the verdict is about")
    scope.write_records(request, anomaly_id)
    give = partial(judging.give, request.app.state.here.ledger, anomaly_id, verdict, by=reviewer.name)
    try:
        given = give(note=note, settle=settle, anyway=anyway)
    except ClaimedByAnother as fault:
        sent = {"verdict": verdict, "note": note, "page": page, "query": query}
        sent |= {"settle": "true"} if settle else {}
        return _asked_again(request, fault, "/verdicts", sent, anomaly_id)
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
    note: FormNote = "",
    sure: Annotated[bool, Form()] = False,
    anyway: Annotated[bool, Form()] = False,
    query: Annotated[str, Form()] = "",
) -> Response:
    """Give a verdict on a whole group, or on the part that the list showed; of a large one, ask first."""
    scope.write(request, dataset)
    sent = {"dataset": dataset, "signature": signature, "since": since, "until": until, "batch": batch}
    sent |= {"verdict": verdict, "note": note, "n": str(n), "query": query}
    if n > MANY and not sure:
        return _asked_if_sure(request, verdict, n, words.signature(signature), sent)
    group = Filters(
        dataset=dataset, signature=signature, since=since or None, until=until or None, batch=batch or None
    )
    ledger = request.app.state.here.ledger
    try:
        given = judging.give_group(ledger, group, verdict, by=reviewer.name, note=note, n=n, anyway=anyway)
    except ClaimedByAnother as fault:
        return _asked_again(request, fault, "/groups/verdicts", sent | {"sure": "true"})
    return _back(request, "groups", query, act=given.act, told=_sentence(given, verdict))


@router.post("/record/{anomaly_id}/claim")
def claim(request: Request, reviewer: Known, anomaly_id: Id, query: Annotated[str, Form()] = "") -> Response:
    """Claim a record, or renew the claim."""
    scope.write_records(request, [anomaly_id])
    held = claims.claim(request.app.state.here.ledger, anomaly_id, by=reviewer.name)
    told = "" if held.by == reviewer.name else f"{held.by} was here first"
    return _back(request, "record", query, anomaly_id, told=told)


@router.post("/record/{anomaly_id}/release")
def release(
    request: Request, reviewer: Known, anomaly_id: Id, query: Annotated[str, Form()] = ""
) -> Response:
    scope.write_records(request, [anomaly_id])
    claims.release(request.app.state.here.ledger, anomaly_id, by=reviewer.name)
    return _back(request, "record", query, anomaly_id, told="")


@router.post("/undo")
def undo(
    request: Request,
    reviewer: Known,
    act: Said,
    page: Annotated[Page, Form()] = "queue",
    query: Annotated[str, Form()] = "",
    anomaly_id: Annotated[str, Form()] = "",
) -> Response:
    """Take back an act."""
    ledger, meant = request.app.state.here.ledger, scope.act(request, act)
    done = judging.undo(ledger, meant.act, by=reviewer.name)
    if not done.anomaly_ids:
        return _back(request, page, query, anomaly_id, told=f"taken back already: {meant.what}")
    holds = in_words(queue.states(ledger, done.anomaly_ids).values())
    now = f"; now: {holds}" if holds else ""
    return _back(request, page, query, anomaly_id, told=f"withdrawn: {meant.what}{now}")


@router.post("/rules")
def save_rule(
    request: Request,
    reviewer: Known,
    dataset: Said,
    signature: Said = "",
    column: Pairs = None,
    value: Pairs = None,
    ends_on: Said = "",
    note: FormNote = "",
    shown: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """Save a suppression rule, unless it has a slip or hides something else than the page showed.

    In both cases the draft is shown again; `shown` says what the page showed.
    """
    scope.write(request, dataset)
    here = request.app.state.here
    draft = drafts.typed(dataset, signature, column or [], value or [], ends_on, note)
    try:
        rule = drafts.rule_of(here, draft, by=reviewer.name)
        if shown != drafts.shown_as(rule):
            return drafts.answer(request, replace(draft, is_changed=True))
        tried = effects.preview(here.ledger, rule)
        kept = suppression.save(here.ledger, rule)
    except ConfigError as fault:
        return drafts.answer(request, replace(draft, slip=str(fault)))
    nothing = f"; {tried.text}" if tried.is_idle else ""
    return _back(request, "rules", "", told=f"rule {kept.number} holds until {kept.ends_on}{nothing}")


@router.post("/rules/{number}/end")
def end_rule(request: Request, reviewer: Known, number: Annotated[int, Path(ge=1, le=LARGEST)]) -> Response:
    scope.write_rule(request, number)
    n = suppression.end(request.app.state.here.ledger, number, by=reviewer.name)
    are = f"{n:,} records are" if n != 1 else "1 record is"
    return _back(request, "rules", "", told=f"rule {number} is ended; {are} in the queue again")


def _back(
    request: Request, page: Page, query: str, anomaly_id: str = "", *, told: str, act: str = ""
) -> Response:
    """Redirect to the page that a form came from: a name, not an address, so that nobody can inject one."""
    known = (Grouped if page == "groups" else Paged).model_fields
    kept = [(name, value) for name, value in parse_qsl(query) if name in known]
    path = {"queue": "/", "groups": "/groups", "rules": "/rules", "record": f"/record/{anomaly_id[:32]}"}[
        page
    ]
    sent = [*kept, *([("told", told)] if told else []), *([("act", act)] if act else [])]
    return RedirectResponse(f"{request.scope.get('root_path', '')}{path}?{urlencode(sent)}", 303)


def _sentence(given: judging.Judged, verdict: str) -> str:
    n, left = len(given.anomaly_ids), len(given.claimed)
    clash = f"; reviewers differ on {len(given.conflicts)}" if given.conflicts else ""
    was = f"; before: {in_words(states)}" if {*(states := given.before.values())} - {"open", verdict} else ""
    said = (
        f"{VERDICT_NAMES[verdict]}: {n:,} record{'s' * (n != 1)}{was}{clash}"
        if n
        else "said before: nothing changed"
    )
    return f"{said}; {left} left out: somebody else is at {'it' if left == 1 else 'them'}" if left else said


def _asked_again(
    request: Request,
    fault: ClaimedByAnother,
    action: str,
    sent: dict[str, str],
    anomaly_ids: Sequence[str] = (),
) -> Response:
    """Show what was sent, note and all, with who is at it and a button that gives the verdict anyway."""
    fields = [*sent.items(), *(("anomaly_id", one) for one in anomaly_ids)]
    given = {"message": str(fault), "action": action, "fields": fields, "anomaly_ids": anomaly_ids[:1]}
    asked = {"title": "Somebody is at it", "insists": "anyway", "button": "Give it anyway"}
    return write_page(request, "asked.html", query="", status=409, **asked, **given)


def _asked_if_sure(request: Request, verdict: str, n: int, which: str, sent: dict[str, str]) -> Response:
    """Show how many records one press is about, with a button that gives the verdict."""
    said = f"{VERDICT_NAMES[verdict]} would be said of {n:,} records at once, {which}; nothing is written yet"
    asked = {
        "title": f"All {n:,} records?",
        "insists": "sure",
        "button": f"{VERDICT_NAMES[verdict]}: all {n:,}",
    }
    given = {"message": said, "action": "/groups/verdicts", "fields": [*sent.items()], "anomaly_ids": ()}
    return write_page(request, "asked.html", query="", status=409, **asked, **given)
