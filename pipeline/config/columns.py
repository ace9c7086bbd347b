"""What a person may say of one column: its type, its role, its rules, or the SQL that derives it.

Belongs here: a column by itself. Does not: relations between columns (coherence.py), or what a rule means for
data (contracts.py).
"""

from __future__ import annotations

import re
from functools import cache
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

DECIMAL = re.compile(r"decimal\((\d{1,2}), ?(\d{1,2})\)")
PLAIN_TYPES = ("float", "int", "bool", "string", "date", "timestamp", "timestamp_utc", "other")
Role = Literal["numeric", "categorical", "context", "ignored"]
TIMES = ("date", "timestamp", "timestamp_utc")
NUMBERS = ("float", "int", "decimal")


@cache
def _refused_by_duckdb(pattern: str) -> str:
    """Return why DuckDB, which will match it, refuses a pattern: it has no look-around or back-references."""
    import duckdb

    with duckdb.cursor() as connection:  # opens no database; the process's own connection may be busy
        try:
            connection.execute("SELECT regexp_full_match('', ?)", [pattern])
        except duckdb.Error as fault:
            return str(fault)
    return ""


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Column(Strict):
    """What one column promises, and what the model does with it."""

    type: str = Field(
        description="float, int, bool, string, date, timestamp, timestamp_utc, decimal(p,s) or other"
    )
    role: Role = Field(
        "ignored", description="numeric and categorical are modelled, context conditions the model"
    )
    required: bool = Field(False, description="a missing value sets the record aside")
    min: float | None = Field(None, allow_inf_nan=False, description="smallest accepted value (numbers)")
    max: float | None = Field(None, allow_inf_nan=False, description="largest accepted value (numbers)")
    values: list[str] | None = Field(None, description="accepted values (string); anything else is set aside")
    pattern: str | None = Field(
        None, description="regular expression (RE2) that the whole text must match (string)"
    )

    @field_validator("type")
    @classmethod
    def _known_type(cls, type_: str) -> str:
        decimal = DECIMAL.fullmatch(type_)
        if type_ not in PLAIN_TYPES and not decimal:
            raise ValueError(
                f'must be "decimal(p,s)", in quotes, or one of {", ".join(PLAIN_TYPES)}; is {type_!r}'
            )
        if not decimal:
            return type_
        precision, scale = int(decimal[1]), int(decimal[2])
        if not max(1, scale) <= precision <= 38:
            raise ValueError(f"{type_} needs scale <= precision <= 38, and a precision of at least 1")
        return f"decimal({precision},{scale})"

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            fault = _refused_by_duckdb(pattern)
            if fault:
                raise ValueError(f"is not a regular expression: {fault}")
        return pattern

    @property
    def is_number(self) -> bool:
        return self.type.startswith(NUMBERS)

    @property
    def is_time(self) -> bool:
        return self.type in TIMES

    @property
    def is_countable(self) -> bool:
        """Whether its values are numbers for the model, as those of `bool` are."""
        return self.is_number or self.type == "bool"

    @property
    def is_quantity(self) -> bool:
        """Whether its values have an order for the model.

        Codes of role categorical are numbers, too, but merely different ones.
        """
        return self.is_number and self.role != "categorical"

    @model_validator(mode="after")
    def _rules_fit_type(self) -> Column:
        faults = []
        if self.role == "numeric" and not self.is_countable:
            faults.append(f"role numeric needs a number, type is {self.type}")
        if self.role == "categorical" and self.type not in {"string", "bool", "int", "float"}:
            faults.append(f"role categorical needs string, bool, int or float, type is {self.type}")
        if self.type == "other" and self.role != "ignored":
            faults.append("type other (nested, binary, time of day) can only have role ignored")
        if not self.is_number and (self.min is not None or self.max is not None):
            faults.append(f"min and max are for numbers, type is {self.type}")
        if self.min is not None and self.max is not None and self.min > self.max:
            faults.append(f"min {self.min:g} is above max {self.max:g}")
        if self.type != "string" and (self.values is not None or self.pattern is not None):
            faults.append(f"values and pattern are for strings, type is {self.type}")
        if faults:
            raise ValueError("; ".join(faults))
        return self


class Derived(Strict):
    """A column computed from a record and from the ones before it."""

    sql: str = Field(
        description="DuckDB expression over the columns; windows by_time, the_hour and the_day look back"
    )
    role: Literal["numeric", "context"] = Field("numeric", description="modelled, or conditions the model")

    @property
    def column(self) -> Column:
        return Column(type="float", role=self.role)
