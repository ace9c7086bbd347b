"""The JSON API: the same functions as the page and the command line, typed.

Belongs here: shapes of requests and answers. Does not: the work (the package above).
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import date, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from pipeline.review import groups as gathering
from pipeline.review import judging, queue, statistics, suppression
from pipeline.review import versions as rescoring
from pipeline.review.queue import Filters, Place
from pipeline.review.web import scope
from pipeline.review.web.access import Known
from pipeline.verdicts import Opinion, State

router = APIRouter()
LARGEST = 2**31 - 1  # what a column of the database holds


def _is_day(text: str) -> str:
    date.fromisoformat(text)
    return text


def _as_number(given: Any) -> Any:
    """An address has text only."""
    return int(given) if isinstance(given, str) and given.isdecimal() and len(given) <= 2 else given


Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]  # PostgreSQL has no text with a NUL in it
Id = Annotated[Text, Field(min_length=1, max_length=32)]
Day = Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"), AfterValidator(_is_day)]
Band = Annotated[Literal[0, 2, 3, 4, 6, 10, 16], BeforeValidator(_as_number)]
Number = Annotated[int, Field(ge=0, le=LARGEST)]


class _Emptied(BaseModel):
    """What an address gives; an empty value is none."""

    model_config = ConfigDict(extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _nothing_is_none(cls, given: Any) -> Any:
        """A form sends every field, the empty ones too."""
        return (
            {name: value for name, value in given.items() if value != ""}
            if isinstance(given, dict)
            else given
        )


class Choice(_Emptied):
    """Filters as an address gives them."""

    dataset: Text | None = Field(None, max_length=63)
    state: State | Literal["any"] | None = None
    driver: Text | None = Field(None, max_length=1000, description="column with the largest share")
    band: Band | None = Field(None, description="severity at least")
    kind: Literal["flagged", "sampled", "cleared"] | None = None
    model_version: Number | None = None
    reviewer: Text | None = Field(None, max_length=250)
    since: Day | None = None
    until: Day | None = None
    batch: Text | None = Field(None, max_length=250)
    signature: Text | None = Field(None, max_length=4000)
    search: Text | None = Field(None, max_length=200, description="beginning of a record's key or id")
    suppressed: bool = False

    def filters(self) -> Filters:
        """The same, as the queue takes them."""
        given = self.model_dump(exclude={"after", "limit"})
        return Filters(**given | {"state": None if self.state == "any" else self.state})


class Grouped(_Emptied):
    """The filters that groups are counted by."""

    dataset: Text | None = Field(None, max_length=63)
    state: State | None = None
    since: Day | None = None
    until: Day | None = None
    batch: Text | None = Field(None, max_length=250)
    signature: Text | None = Field(None, max_length=4000)

    def filters(self) -> Filters:
        """The same, as groups take them."""
        return Filters(**self.model_dump())


class Paged(Choice):
    """Filters, and where a page begins and ends."""

    after: Text | None = Field(None, max_length=300, description="`more_after` of the page before")
    limit: int = Field(queue.PAGE, ge=1, le=500)


class Reason(BaseModel):
    """A column that explains a share of the score."""

    column: str
    observed: str
    expected: str
    low: float | str | None
    high: float | str | None
    share: float


class Claim(BaseModel):
    """Who is at a record, until when."""

    by: str
    until: datetime


class Claimed(Claim):
    """The same, told to who asked."""

    is_mine: bool


class Listed(BaseModel):
    """A record as a list shows it."""

    anomaly_id: str
    dataset: str
    batch_id: str
    day: str
    kind: str
    record_key: str = Field(description="cut after 200 characters")
    severity: float
    anomaly_score: float
    p_value: float
    threshold: float
    model_version: int
    driver: str
    signature: str
    reasons: list[Reason]
    state: State
    reviewer: str
    claim: Claim | None


class Entry(BaseModel):
    """One entry of a record's history."""

    number: int
    verdict: str
    note: str
    by: str
    decided_at: datetime
    withdraws: int | None
    settles: bool
    act: str


class Version(BaseModel):
    """What one model version said of a record."""

    model_version: int
    kind: str
    severity: float
    anomaly_score: float
    threshold: float
    scored_at: datetime


class Rescored(BaseModel):
    """What one registered model version says of a record now."""

    model_version: int
    aliases: list[str]
    trained_at: datetime
    anomaly_score: float | None
    severity: float | None
    threshold: float | None = Field(description="null where it depends on the whole batch")
    would_flag: bool | None
    why_not: str = Field(description="where the version cannot say")


class Whole(Listed):
    """A record with its values and history."""

    row_number: int
    reconstruction: float
    kl_divergence: float
    kl_share: float | None
    scored_at: datetime
    record: dict[str, Any]
    verdicts: list[Entry]
    holding: list[int] = Field(description="numbers of the entries that count")
    versions: list[Version]


class Records(BaseModel):
    """A page of records, and what to give as `after` for the next."""

    records: list[Listed]
    more_after: str | None


class GroupFound(BaseModel):
    """Records that are odd in the same columns and directions."""

    dataset: str
    signature: str
    n: int
    severest: float
    first_day: str
    last_day: str
    exemplar: Listed


class Saying(BaseModel):
    """A verdict on some records."""

    anomaly_ids: list[Id] = Field(min_length=1, max_length=10_000)
    verdict: Opinion
    note: str = Field("", max_length=judging.LONGEST_NOTE)
    settle: bool = Field(False, description="end a disagreement: what others said no longer counts")


class GroupSaying(BaseModel):
    """A verdict on every open record of a group."""

    dataset: Text
    signature: Text
    since: Day | None = Field(None, description="the first day, where only a part was shown")
    verdict: Opinion
    note: str = Field("", max_length=judging.LONGEST_NOTE)
    n: Number = Field(
        description="how many records the group had when it was shown: fewer or more now is refused"
    )


class Rule(BaseModel):
    """What hides flagged records until a day."""

    dataset: Text
    signature: Text = Field("", description="as records have it; empty: any")
    conditions: dict[Text, Text] = Field(
        default_factory=dict, max_length=100, description="column → value as text; all must hold"
    )
    ends_on: Day
    note: str = Field(min_length=1, max_length=judging.LONGEST_NOTE, description="what is known about these")


class RuleKept(Rule):
    """A saved rule."""

    number: int
    by: str
    made_at: datetime
    ended_by: str | None


class Tried(BaseModel):
    """What a rule would have hidden in the last 30 days."""

    n_hidden: int
    n_judged: int
    n_confirmed: int
    examples: list[str] = Field(description="anomaly_ids, confirmed ones first")


class Ended(BaseModel):
    """How many records are in the queue again."""

    n_released: int


class Said(BaseModel):
    """What a call changed, and what undoes it."""

    act: str
    anomaly_ids: list[str]
    conflicts: list[str]
    states: dict[str, State]


@router.get("/records")
def records(request: Request, choice: Annotated[Paged, Query()]) -> Records:
    """Records of the queue, the newest day first, on a day the most severe first."""
    ledger, after = request.app.state.here.ledger, read_place(choice.after)
    found = queue.page(ledger, scope.seen(request, choice.filters()), after=after, limit=choice.limit)
    more = str(found.more_after) if found.more_after else None
    return Records(records=[Listed.model_validate(row) for row in found.rows], more_after=more)


@router.get("/counts")
def counts(request: Request, choice: Annotated[Choice, Query()]) -> dict[str, dict[str, int]]:
    """How many records each choice of each filter would show, the others being as they are."""
    found = queue.counts(request.app.state.here.ledger, scope.seen(request, choice.filters()))
    return {name: {str(value): n for value, n in values.items()} for name, values in found.items()}


@router.get("/records/{anomaly_id}")
def one(request: Request, anomaly_id: str) -> Whole:
    """One record whole."""
    return Whole.model_validate(scope.one(request, anomaly_id))


@router.get("/records/{anomaly_id}/versions")
def versions(request: Request, anomaly_id: str) -> list[Rescored]:
    """How the newest model versions that are still registered score a record now, the newest first."""
    here = request.app.state.here
    row = scope.one(request, anomaly_id)
    found = rescoring.scored_by(here, here.dataset(row["dataset"]), row)
    return [Rescored.model_validate(asdict(one) | {"would_flag": one.would_flag}) for one in found]


@router.get("/groups")
def groups(request: Request, choice: Annotated[Grouped, Query()]) -> list[GroupFound]:
    """The largest groups of flagged records that are odd alike and that no rule hides."""
    found = gathering.groups(request.app.state.here.ledger, scope.seen(request, choice.filters()))
    return [GroupFound.model_validate(asdict(group)) for group in found]


@router.get("/stats")
def stats(request: Request, dataset: str | None = None) -> dict[str, Any]:
    """What verdicts add up to."""
    which = scope.datasets(request, dataset)
    return statistics.as_dict(statistics.review(request.app.state.here.ledger, which))


@router.get("/rules")
def rules(request: Request, dataset: Text | None = None) -> list[RuleKept]:
    """Suppression rules, newest first, those that were ended too."""
    return [RuleKept.model_validate(vars(rule)) for rule in scope.rules(request, dataset)]


@router.get("/rules/preview")
def preview(
    request: Request,
    dataset: Text,
    signature: Text = "",
    column: Annotated[list[Text] | None, Query()] = None,
    value: Annotated[list[Text] | None, Query()] = None,
) -> Tried:
    """What a rule would have hidden in the last 30 days; `column` and `value` are repeated, a pair a condition."""
    scope.datasets(request, dataset)
    pairs = suppression.conditions(zip(column or [], value or [], strict=False))
    draft = suppression.Rule(dataset, signature, pairs, "", "", "")
    return Tried.model_validate(asdict(suppression.preview(request.app.state.here.ledger, draft)))


@router.post("/rules", status_code=201)
def add_rule(request: Request, rule: Rule, reviewer: Known) -> RuleKept:
    """Keep a suppression rule, and hide what it matches among the open records."""
    scope.write(request, rule.dataset)
    given = suppression.Rule(**rule.model_dump(), by=reviewer.name)
    return RuleKept.model_validate(vars(suppression.save(request.app.state.here.ledger, given)))


@router.post("/rules/{number}/end")
def end_rule(request: Request, number: Annotated[int, Path(ge=1, le=LARGEST)], reviewer: Known) -> Ended:
    """End a suppression rule now: what it hid, and no other rule hides, comes back."""
    scope.write_rule(request, number)
    return Ended(n_released=suppression.end(request.app.state.here.ledger, number, by=reviewer.name))


@router.post("/verdicts")
def say(request: Request, said: Saying, reviewer: Known) -> Said:
    """Give a verdict on some records."""
    ledger = request.app.state.here.ledger
    scope.write_records(request, said.anomaly_ids)
    given = judging.give(
        ledger, said.anomaly_ids, said.verdict, by=reviewer.name, note=said.note, settle=said.settle
    )
    return _said(request, given, said.anomaly_ids)


@router.post("/groups/verdicts")
def say_of_group(request: Request, said: GroupSaying, reviewer: Known) -> Said:
    """Give a verdict on every open record of a group."""
    ledger = request.app.state.here.ledger
    scope.write(request, said.dataset)
    group = Filters(dataset=said.dataset, signature=said.signature, since=said.since)
    given = judging.give_group(ledger, group, said.verdict, by=reviewer.name, note=said.note, n=said.n)
    return _said(request, given, given.anomaly_ids)


@router.post("/acts/{act}/undo")
def undo(request: Request, act: str, reviewer: Known) -> Said:
    """Take back what was said in one act."""
    done = judging.undo(request.app.state.here.ledger, scope.act(request, act), by=reviewer.name)
    return _said(request, done, done.anomaly_ids)


@router.post("/undo")
def undo_newest(request: Request, reviewer: Known) -> Said:
    """Take back one's newest act of which something still holds."""
    done = judging.undo(request.app.state.here.ledger, scope.act(request), by=reviewer.name)
    return _said(request, done, done.anomaly_ids)


@router.post("/records/{anomaly_id}/claim")
def claim(request: Request, anomaly_id: str, reviewer: Known) -> Claimed:
    """Say that one is at a record; tells who is, if somebody else was first."""
    scope.write_records(request, [anomaly_id])
    by, until = judging.claim(request.app.state.here.ledger, anomaly_id, by=reviewer.name)
    return Claimed(by=by, until=until, is_mine=by == reviewer.name)


@router.delete("/records/{anomaly_id}/claim", status_code=204)
def release(request: Request, anomaly_id: str, reviewer: Known) -> None:
    """Give one's claim back."""
    judging.release(request.app.state.here.ledger, anomaly_id, by=reviewer.name)


def read_place(after: str | None) -> Place | None:
    """Where a page begins, as an address gives it; a place that is none is the beginning."""
    try:
        return Place.read(after) if after else None
    except ValueError:
        return None


def _said(request: Request, given: judging.Judged, anomaly_ids: Any) -> Said:
    states = queue.states(request.app.state.here.ledger, list(anomaly_ids)[:500])
    return Said(
        act=given.act, anomaly_ids=list(given.anomaly_ids), conflicts=list(given.conflicts), states=states
    )
