"""The JSON API: the same functions as the page and the command line, typed.

Belongs here: routes. Does not: the shapes that they take and give (shapes.py), or the work (review/).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Security
from fastapi.security import HTTPBearer
from starlette.background import BackgroundTask
from starlette.responses import FileResponse

from pipeline.errors import ConfigError
from pipeline.results import export
from pipeline.review import (
    acts,
    claims,
    compare,
    disagreements,
    effects,
    judging,
    queue,
    rule_words,
    statistics,
    suppression,
)
from pipeline.review import groups as gathering
from pipeline.review import record as looking
from pipeline.review import versions as rescoring
from pipeline.review.filters import Filters
from pipeline.review.queued import Whole
from pipeline.web import scope
from pipeline.web.access import Known
from pipeline.web.shapes import (
    LARGEST,
    Batched,
    Batches,
    Choice,
    Claimed,
    Counts,
    DerivedValue,
    Ended,
    Grouped,
    GroupSaying,
    OneDataset,
    Paged,
    Records,
    Refusal,
    Rule,
    RuleMade,
    Said,
    Saying,
    Text,
    Undone,
    read_place,
)

REFUSALS: dict[int | str, dict[str, Any]] = {
    401: {"model": Refusal, "description": "this token is not known"},
    403: {"model": Refusal, "description": "you may not write, or not here"},
    404: {"model": Refusal, "description": "there is no such thing among what you may read"},
    422: {"model": Refusal, "description": "a value that was sent is not possible"},
    503: {"model": Refusal, "description": "storage failed; a retry may help"},
}
CLAIMED: dict[int | str, dict[str, Any]] = {
    409: {"model": Refusal, "description": "somebody else is at all of these records; see `anyway`"},
}
router = APIRouter(
    responses=REFUSALS,
    # describes what the guard of every route asks for; refuses nobody by itself
    dependencies=[
        Security(
            HTTPBearer(
                auto_error=False, description="outside Airflow the page's token; in Airflow one of Airflow's"
            )
        )
    ],
)


@router.get("/records")
def records(request: Request, choice: Annotated[Paged, Query()]) -> Records:
    """Records of the queue, the newest day first, on a day the most severe first."""
    ledger, after = request.app.state.here.ledger, read_place(choice.after)
    found = queue.page(ledger, scope.seen(request, choice.filters()), after=after, limit=choice.limit)
    more = str(found.more_after) if found.more_after else None
    return Records(records=found.rows, more_after=more)


@router.get("/counts")
def counts(request: Request, choice: Annotated[Choice, Query()]) -> Counts:
    """How many records each choice of each filter would show, the others being as they are: flagged ones,
    unless `kind` is given.
    """
    found = queue.counts(request.app.state.here.ledger, scope.seen(request, choice.filters()))
    named = {name: {str(value): n for value, n in values.items()} for name, values in found.items()}
    return Counts.model_validate(named)


@router.get("/records/{anomaly_id}")
def one(request: Request, anomaly_id: str) -> Whole:
    """One record whole."""
    return scope.one(request, anomaly_id)


@router.get("/records/{anomaly_id}/derived")
def derived(request: Request, anomaly_id: str) -> list[DerivedValue]:
    """The values of a record's derived columns, computed anew; none where it is no longer stored as it was
    scored.
    """
    here, row = request.app.state.here, scope.one(request, anomaly_id)
    found = rescoring.derived_values(here, here.dataset(row.dataset), row)
    return [DerivedValue(column=name, value=value) for name, value in found.items()]


@router.get("/records/{anomaly_id}/versions")
def versions(request: Request, anomaly_id: str) -> list[rescoring.Scored]:
    """How the newest model versions that are still registered score a record now, the newest first."""
    here, row = request.app.state.here, scope.one(request, anomaly_id)
    return rescoring.scored_by(here, here.dataset(row.dataset), row)


@router.get("/records/{anomaly_id}/neighbours")
def neighbours(
    request: Request,
    anomaly_id: str,
    each_side: Annotated[int, Query(ge=1, le=100, description="how many before, and after")] = 3,
) -> looking.Neighbours:
    """The records before and after one in time, of the same entity; without an entity, those of its batch."""
    here, row = request.app.state.here, scope.one(request, anomaly_id)
    return looking.neighbours(here, here.dataset(row.dataset), row, each_side=each_side)


@router.get("/records/{anomaly_id}/nearest")
def nearest(
    request: Request, anomaly_id: str, n: Annotated[int, Query(ge=1, le=50, description="how many")] = 3
) -> list[compare.Near]:
    """The records of its batch that are most like one and were not flagged, the nearest first."""
    here, row = request.app.state.here, scope.one(request, anomaly_id)
    return compare.nearest(here, here.dataset(row.dataset), row, n=n)


@router.get("/records/{anomaly_id}/clearing")
def clearing(request: Request, anomaly_id: str) -> compare.Clearing:
    """The smallest change, along a record's reasons, after which it would not have been flagged."""
    here, row = request.app.state.here, scope.one(request, anomaly_id)
    return compare.clearing(here, here.dataset(row.dataset), row)


@router.get("/disagreements/{dataset}")
def two_versions(request: Request, dataset: Text) -> disagreements.TwoVersions:
    """Records that the challenger or the champion alone flags, as the newest evaluation kept them."""
    return disagreements.newest(request.app.state.here, scope.dataset(request, dataset))


@router.get("/groups")
def groups(request: Request, choice: Annotated[Grouped, Query()]) -> list[gathering.Group]:
    """The largest groups of flagged records that are odd alike and that no rule hides: of open ones, as on
    the page, unless another `state` is given, or `any`.
    """
    filters = scope.seen(request, choice.filters())
    return gathering.groups(request.app.state.here.ledger, filters, limit=choice.limit)


@router.get("/batches")
def batches(request: Request, choice: Annotated[Batched, Query()]) -> Batches:
    """Batches, the newest day first, each with what its page says at the top."""
    found = scope.batches(request, choice)
    return Batches(batches=list(found.batches), more_after=found.more_after)


@router.get("/stats")
def stats(request: Request, choice: Annotated[OneDataset, Query()]) -> statistics.Review:
    """What verdicts add up to."""
    return statistics.review(request.app.state.here.ledger, scope.datasets(request, choice.dataset))


@router.get("/export/{dataset}", response_class=FileResponse)
def export_file(
    request: Request,
    dataset: Text,
    format: Annotated[Literal["parquet", "csv", "jsonl"], Query()] = "jsonl",  # noqa: A002  # as people call it
    batch: Annotated[Text | None, Query(max_length=250)] = None,
    history: Annotated[bool, Query(description="a row for everything that was said")] = False,
) -> FileResponse:
    """Flagged records, and others that were judged, with values and what their verdicts come to, or the
    history of verdicts, as a file.
    """
    scope.dataset(request, dataset)
    folder = tempfile.TemporaryDirectory(prefix="vaewatch-export-")
    out = FilePath(folder.name) / f"{dataset}-{'verdicts' if history else 'records'}.{format}"
    write: Callable[..., object] = export.history if history else export.records
    try:
        write(request.app.state.here, dataset, out, batch_id=batch)
    except BaseException:
        folder.cleanup()
        raise
    return FileResponse(out, filename=out.name, background=BackgroundTask(folder.cleanup))


@router.get("/rules")
def rules(request: Request, choice: Annotated[OneDataset, Query()]) -> list[effects.RuleAtWork]:
    """Suppression rules, newest first, those that were ended too, with what each hides now."""
    return effects.effects(request.app.state.here.ledger, scope.rules(request, choice.dataset))


@router.get("/rules/preview")
def preview(
    request: Request,
    dataset: Text,
    signature: Text = "",
    column: Annotated[list[Text] | None, Query()] = None,
    value: Annotated[list[Text] | None, Query()] = None,
) -> effects.Preview:
    """What a rule would have hidden in the last 30 days, and what it hides of the whole queue once it is
    saved; `column` and `value` are repeated, a pair a condition.
    """
    scope.datasets(request, dataset)
    columns, values = column or [], value or []
    if len(columns) != len(values):
        raise ConfigError(
            f"suppression rule: {len(columns)} columns and {len(values)} values: give each column its value"
        )
    pairs = suppression.conditions(zip(columns, values, strict=True))
    said = suppression.Rule(dataset, signature, pairs, "", "", "")
    draft = rule_words.fitted(request.app.state.here, said)
    return effects.preview(request.app.state.here.ledger, draft)


@router.post("/rules", status_code=201)
def add_rule(request: Request, rule: Rule, reviewer: Known) -> RuleMade:
    """Keep a suppression rule, and hide what it matches among the open records; with what it would have
    hidden in the last 30 days.
    """
    scope.write(request, rule.dataset)
    here = request.app.state.here
    given = rule_words.fitted(here, suppression.Rule(**rule.model_dump(), by=reviewer.name))
    tried = effects.preview(here.ledger, given)
    return RuleMade(**vars(suppression.save(here.ledger, given)), preview=tried)


@router.post("/rules/{number}/end")
def end_rule(request: Request, number: Annotated[int, Path(ge=1, le=LARGEST)], reviewer: Known) -> Ended:
    """End a suppression rule now: what it hid, and no other rule hides, comes back."""
    scope.write_rule(request, number)
    return Ended(n_released=suppression.end(request.app.state.here.ledger, number, by=reviewer.name))


@router.post("/verdicts", responses=CLAIMED)
def say(request: Request, said: Saying, reviewer: Known) -> Said:
    """Give a verdict on some records."""
    ledger = request.app.state.here.ledger
    scope.write_records(request, said.anomaly_ids)
    given = judging.give(
        ledger,
        said.anomaly_ids,
        said.verdict,
        by=reviewer.name,
        note=said.note,
        settle=said.settle,
        anyway=said.anyway,
    )
    return _said(request, given, said.anomaly_ids)


@router.post("/groups/verdicts", responses=CLAIMED)
def say_of_group(request: Request, said: GroupSaying, reviewer: Known) -> Said:
    """Give a verdict on every open record of a group, or of that part of it which was shown."""
    ledger = request.app.state.here.ledger
    scope.write(request, said.dataset)
    group = Filters(
        dataset=said.dataset,
        signature=said.signature,
        since=said.since,
        until=said.until,
        batch=said.batch,
    )
    given = judging.give_group(
        ledger, group, said.verdict, by=reviewer.name, note=said.note, n=said.n, anyway=said.anyway
    )
    return _said(request, given, given.anomaly_ids)


@router.get("/acts/newest")
def newest_act(request: Request) -> acts.Act:
    """One's newest act of which something still holds: what would be taken back next."""
    return scope.newest_act(request)


@router.post("/acts/{act}/undo")
def undo(request: Request, act: str, reviewer: Known) -> Undone:
    """Take back what was said in one act."""
    meant = scope.act(request, act)
    done = judging.undo(request.app.state.here.ledger, meant.act, by=reviewer.name)
    return Undone(**vars(_said(request, done, done.anomaly_ids)), what=meant.what)


@router.post("/records/{anomaly_id}/claim")
def claim(request: Request, anomaly_id: str, reviewer: Known) -> Claimed:
    """Say that one is at a record; tells who is, if somebody else was first."""
    scope.write_records(request, [anomaly_id])
    held = claims.claim(request.app.state.here.ledger, anomaly_id, by=reviewer.name)
    return Claimed(**vars(held), is_mine=held.by == reviewer.name)


@router.delete("/records/{anomaly_id}/claim", status_code=204)
def release(request: Request, anomaly_id: str, reviewer: Known) -> None:
    """Give one's claim back."""
    scope.write_records(request, [anomaly_id])
    claims.release(request.app.state.here.ledger, anomaly_id, by=reviewer.name)


def _said(request: Request, given: judging.Judged, anomaly_ids: Any) -> Said:
    states = queue.states(request.app.state.here.ledger, list(anomaly_ids)[:500])
    return Said(**vars(given), states=states)
