"""Shapes of requests and answers: what an address or a body may hold, and what is sent back.

Belongs here: pydantic models. Does not: routes (api.py, pages.py, forms.py), what a record stands beside
(beside.py), sums (sums.py), or what a value means.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from pipeline.review import judging, queue
from pipeline.review.filters import Filters, Place
from pipeline.verdicts import Opinion, State

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
    driver: Text | None = Field(
        None,
        max_length=1000,
        description="most at odds: the column with the largest share of what makes a record odd",
    )
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
    unknown: bool | None = Field(None, description="a category that training did not have, or hardly ever")


class Term(BaseModel):
    """What a column adds to the score."""

    column: str
    nats: float


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


class Disagreement(BaseModel):
    """A record that one of two versions alone flags."""

    anomaly_id: str
    batch_id: str
    record_key: str
    flagged_by: int = Field(description="model version")
    score: float | None = Field(description="nats, under the judged version; null: not kept")
    score_against: float | None = Field(
        description="nats, under the version that it was measured beside; null: not kept"
    )
    p_value: float = Field(description="under the judged version")
    p_value_against: float = Field(description="under the version that it was measured beside")
    state: State | None = Field(description="null: not in the queue")


class Shadow(BaseModel):
    """Days of batches that landed after the training."""

    trained_at: datetime
    after: str = Field(description="the last batch that was learned from")
    days: float
    asked: float
    left: float


class TwoMeasured(BaseModel):
    """What an evaluation says of two versions' flags."""

    version: int
    aliases: list[str]
    against: int
    champion: int | None = Field(description="the version that serves now")
    evaluated_at: datetime
    outcome: str
    last_batch: str
    n_records: int
    either: int = Field(description="records that one or both flag")
    differ: int = Field(description="records that one alone flags")
    threshold: float | None = Field(
        description="score that the judged version flags above, nats; null: not kept"
    )
    threshold_against: float | None = Field(description="the same of the other version")
    records: list[Disagreement] = Field(description="the most severe of these")
    shadow: Shadow | None = Field(description="null: none runs")
    in_shadow: bool = Field(description="the records are of batches that landed after the training")


class TwoVersions(BaseModel):
    """Where two versions disagree; where nothing is known, why, and a command that changes it."""

    measured: TwoMeasured | None
    why_not: str
    command: str


class Whole(Listed):
    """A record with its values and history."""

    row_number: int
    reconstruction: float
    kl_divergence: float
    kl_weight: float | None = Field(description="of the KL divergence in the score; null: not kept")
    kl_share: float | None
    terms: list[Term] = Field(description="the largest; the score is all terms and kl_weight × kl_divergence")
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


class RuleAtWork(RuleKept):
    """A saved rule and what it does."""

    n_hidden: int = Field(description="open records that it hides now")
    n_confirmed: int = Field(
        description="records that it matches and that were confirmed, among the newest thousand anomalies and data errors"
    )


class Tried(BaseModel):
    """What a rule would have hidden in the last 30 days."""

    n_hidden: int
    n_judged: int
    n_confirmed: int
    examples: list[str] = Field(description="anomaly_ids, confirmed ones first")


class RuleMade(RuleKept):
    """A rule that was just saved, and what it would have hidden: nothing, where it does not say what was
    meant.
    """

    preview: Tried


class Ended(BaseModel):
    """How many records are in the queue again."""

    n_released: int


class Said(BaseModel):
    """What a call changed, and what undoes it."""

    act: str
    anomaly_ids: list[str]
    conflicts: list[str]
    states: dict[str, State]


def open_unless(choice: Choice) -> Filters:
    """Open records are what a reviewer comes for: all states only where they are asked for."""
    filters = choice.filters()
    asked = choice.state is not None or choice.search is not None or choice.suppressed
    return filters if asked else Filters(**{**vars(filters), "state": "open"})


def read_place(after: str | None) -> Place | None:
    """Where a page begins, as an address gives it; a place that is none is the beginning."""
    try:
        return Place.read(after) if after else None
    except ValueError:
        return None
