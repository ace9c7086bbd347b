"""Shapes of requests, and of the answers that only the API has.

Belongs here: what an address or a body may hold. Does not: routes (api.py, pages.py, forms.py), or what is
sent as it is found: those types are described where they are defined (review/queued.py, review/statistics.py
and others).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from pipeline.records.verdicts import Opinion, State
from pipeline.report import listing
from pipeline.review import effects, groups, judging, queue, suppression
from pipeline.review.filters import Filters, Place
from pipeline.review.queued import Claim, Listed, Oddness
from pipeline.storage.ledger import Status

LARGEST = 2**31 - 1  # what a column of the database holds
MOST_GROUPS = 500  # at once
# beside the filters in an address of ours, see render.page and, for `shown`, the form of rules.html
TOLD = frozenset({"told", "act", "shown"})
ANYWAY = (
    "also judge records that somebody else claims; else these are left out (`claimed`), and if there are no "
    "others the answer is 409"
)


def _is_day(text: str) -> str:
    date.fromisoformat(text)
    return text


def _as_number(given: Any) -> Any:
    """Convert to a number where possible: an address has text only."""
    return int(given) if isinstance(given, str) and given.isdecimal() and len(given) <= 2 else given


Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]  # PostgreSQL has no text with a NUL in it
Id = Annotated[Text, Field(min_length=1, max_length=32)]
Day = Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"), AfterValidator(_is_day)]
Band = Annotated[Literal[0, 2, 3, 4, 6, 10, 16], BeforeValidator(_as_number)]
# a form sends a line's end as two characters, a script as one: both are counted and kept alike
Note = Annotated[
    str,
    BeforeValidator(lambda given: given.replace("\r\n", "\n") if isinstance(given, str) else given),
    Field(max_length=judging.LONGEST_NOTE),
]
Number = Annotated[int, Field(ge=0, le=LARGEST)]


class _Emptied(BaseModel):
    """What an address gives; an empty value is none."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _nothing_is_none(cls, given: Any) -> Any:
        """Drop empty values, as a form sends every field, and what a page says was done.

        Raises:
            ValueError: a name is unknown: a list that ignored it would look like what was asked for.
        """
        if not isinstance(given, dict):
            return given
        kept = {name: value for name, value in given.items() if value != "" and name not in TOLD}
        if unknown := sorted(kept.keys() - cls.model_fields.keys()):
            known = (
                f"is not one of {', '.join(cls.model_fields)}" if cls.model_fields else "means nothing here"
            )
            raise ValueError(f"{unknown[0][:60]!r} {known}")
        return kept


class Nothing(_Emptied):
    """What an address gives that takes nothing."""


class OneDataset(_Emptied):
    """One dataset, or all of them."""

    dataset: Text | None = None


class Drafted(_Emptied):
    """A draft of a rule as its form gives it; without a dataset, none."""

    dataset: str = ""
    signature: str = ""
    column: list[str] = Field([], description="a pair a condition, with `value`")
    value: list[str] = []
    ends_on: str = ""
    note: Note = ""


class Choice(_Emptied):
    """Filters as an address gives them."""

    dataset: Text | None = Field(None, max_length=63)
    state: Literal[State, "any"] | None = None
    driver: Text | None = Field(
        None,
        max_length=1000,
        description="most at odds: the column with the largest share of what makes a record odd",
    )
    oddness: Oddness | None = Field(None, description="how it is odd, in the column most at odds")
    severity: Band | None = Field(None, description="severity at least")
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
        """Return the same as the queue takes them."""
        given = self.model_dump(exclude={"after", "limit"})
        return Filters(**given | {"state": None if self.state == "any" else self.state})


class DerivedValue(BaseModel):
    """What a derived column is of a record."""

    column: str
    value: float | None


class Grouped(_Emptied):
    """The filters that groups are counted by."""

    dataset: Text | None = Field(None, max_length=63)
    state: Literal[State, "any"] = Field("open", description="by default those that wait")
    since: Day | None = None
    until: Day | None = None
    batch: Text | None = Field(None, max_length=250)
    signature: Text | None = Field(None, max_length=4000)
    limit: int = Field(groups.SHOWN, ge=1, le=MOST_GROUPS)

    def filters(self) -> Filters:
        """Return the same as groups take them."""
        given = self.model_dump(exclude={"limit"})
        return Filters(**given | {"state": None if self.state == "any" else self.state})


class Paged(Choice):
    """Filters, and where a page begins and ends."""

    after: Text | None = Field(None, max_length=300, description="`more_after` of the page before")
    limit: int = Field(queue.PAGE, ge=1, le=500)


class Batched(_Emptied):
    """Which batches, and where a page of them begins and ends."""

    dataset: Text | None = Field(None, max_length=63)
    status: Status | None = Field(None, description="accepted: it waits to be scored")
    after: Text | None = Field(None, max_length=320, description="`more_after` of the page before")
    limit: int = Field(listing.PAGE, ge=1, le=500)


class Batches(BaseModel):
    """A page of batches, and what to give as `after` for the next."""

    batches: list[listing.ListedBatch]
    more_after: str | None


class Records(BaseModel):
    """A page of records, and what to give as `after` for the next."""

    records: list[Listed]
    more_after: str | None


class Saying(BaseModel):
    """A verdict on some records."""

    anomaly_ids: list[Id] = Field(min_length=1, max_length=10_000)
    verdict: Opinion
    note: Note = ""
    settle: bool = Field(False, description="end a disagreement: what others said no longer counts")
    anyway: bool = Field(False, description=ANYWAY)


class GroupSaying(BaseModel):
    """A verdict on every open record of a group."""

    dataset: Text
    signature: Text
    since: Day | None = Field(None, description="the first day, where only a part was shown")
    until: Day | None = Field(None, description="the last day, likewise")
    batch: Text | None = Field(None, max_length=250, description="the batch, likewise")
    verdict: Opinion
    note: Note = ""
    n: Number = Field(
        description="how many open records the group had when it was shown: fewer or more now is refused"
    )
    anyway: bool = Field(False, description=ANYWAY)


class Rule(BaseModel):
    """What hides flagged records until a day."""

    dataset: Text
    signature: Text = Field("", description="as records have it; empty: any")
    conditions: dict[Text, Text] = Field(
        default_factory=dict, max_length=100, description="column → value as text; all must hold"
    )
    ends_on: Day
    note: Note = Field(min_length=1, description="what is known about these")


@dataclass(frozen=True, kw_only=True)
class RuleMade(suppression.Rule):
    """A rule that was just saved, and what it would have hidden: nothing, where it does not say what was
    meant.
    """

    preview: effects.Preview


class Ended(BaseModel):
    """How many records are in the queue again."""

    n_released: int


@dataclass(frozen=True)
class Said(judging.Judged):
    """What a call changed, and what undoes it."""

    states: dict[str, State]


@dataclass(frozen=True)
class Undone(Said):
    """What was taken back."""

    what: Annotated[str, Field(description="verdict, records and dataset, for people")]


@dataclass(frozen=True)
class Claimed(Claim):
    """Who is at a record, told to who asked."""

    is_mine: bool


class Refusal(BaseModel):
    """Why nothing was done, or found: one sentence for whoever asked."""

    detail: str


class Counts(BaseModel):
    """Of each filter, how many records each of its choices would show, the others being as they are."""

    dataset: dict[str, int]
    state: dict[str, int]
    driver: dict[str, int] = Field(description="by the column that is most at odds")
    oddness: dict[str, int] = Field(description="by how that column is odd")
    severity: dict[str, int] = Field(description="at least")
    kind: dict[str, int] = Field(description="flagged, and the random sample")
    model_version: dict[str, int]
    reviewer: dict[str, int]


def open_unless(choice: Choice) -> Filters:
    """Return the filters, with open records only, unless another state is asked for, or a search."""
    filters = choice.filters()
    asked = choice.state is not None or choice.search is not None or choice.suppressed
    return filters if asked else Filters(**{**vars(filters), "state": "open"})


def read_place(after: str | None) -> Place | None:
    """Return where a page begins, as an address gives it; an unreadable place is the beginning."""
    try:
        return Place.read(after) if after else None
    except ValueError:
        return None
