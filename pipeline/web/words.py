"""What the pages call things, and how they write values.

Belongs here: names of verdicts, states and filters for people; numbers, times and long texts as people read
them. Does not: what they mean (pipeline/records/verdicts.py).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pipeline import numerals
from pipeline.misread import sentence_of
from pipeline.review.parts import DIGITS

FAR = 6  # severity above which no number is given
LONGEST_IN_LIST = 120  # characters
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?([+-]\d\d:\d\d)?")
LONGEST_TOLD = 60  # characters of a value that was not understood
MANY = 20  # records; a verdict on a larger group is asked for once more
DAYS = frozenset({"since", "until", "ends_on"})

VERDICT_NAMES = {
    "anomaly": "anomaly",
    "normal": "normal",
    "expected_change": "expected change",
    "data_error": "data error",
    "unsure": "unsure",
}
WORDS = {
    **VERDICT_NAMES,
    "open": "open",
    "conflict": "conflict",
    "withdrawn": "withdrawn",
    "flagged": "flagged",
    "sampled": "random sample",
    "cleared": "no longer flagged",
    "above": "above expected",
    "below": "below expected",
    "missing": "missing",
    "other_category": "another category",
    "unknown_category": "unknown category",
    "together": "only together with others",
    "no_column": "in no single column",
    "scored": "scored",
    "accepted": "waits",
    "refused": "refused",
}
NO_COLUMN = frozenset({"", "·"})  # signatures of records that are odd in no single column
FACET_NAMES = {
    "dataset": "Dataset",
    "state": "Verdict",
    "severity": "Severity",
    "driver": "Most at odds",
    "oddness": "How it is odd",
    "kind": "Why here",
    "model_version": "Model version",
    "reviewer": "Reviewer",
}
CHIP_NAMES = {
    **{name: text.lower() for name, text in FACET_NAMES.items()},
    "since": "from",
    "until": "to",
    "search": "begins with",
    "signature": "odd in",
}


def number(value: Any, digits: int = 4) -> str:
    """Format a number for people; shorten what is none."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return short(value)
    return numerals.number(value, digits)


def nats(value: float) -> str:
    """Format a part of a score; all parts have the same digits after the point, so that they can be added."""
    return f"{value:,.{DIGITS}f}".replace("-", "\N{MINUS SIGN}")


def rounded(value: Any, is_quantity: bool = False, *, seconds: bool = False) -> str:
    """Format a value, or a reason's text of it: a number for people, a fraction with four digits.

    Whole numbers that are no quantities stay as they are, 13081.0 without its point: as a code, 007 is not 7.
    """
    if isinstance(value, float) and (is_quantity or not value.is_integer()):
        return number(value)
    text = cell(value, seconds=seconds)
    is_number = is_quantity or (numerals.FRACTION.fullmatch(text) and not text.endswith(".0"))
    return numerals.from_text(text, 4) if is_number else text


def cell(value: Any, is_quantity: bool = False, *, seconds: bool = False) -> str:
    """Format a value of a record: a fraction or a quantity with commas and all its digits.

    A time has a blank where JSON has a T; anything else stays as it is.
    """
    text = numerals.in_full(value, is_quantity)
    text = text.lower() if isinstance(value, bool) else text
    if TIME.fullmatch(text):
        text = text.replace("T", " ").replace("+00:00", " UTC")
        return text[:19] + " UTC" * text.endswith("UTC") if seconds else text
    return text


def short(value: Any, most: int = LONGEST_IN_LIST) -> str:
    """Cut a text, and say how long it was."""
    text = "" if value is None else str(value)
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"


def signature(given: str) -> str:
    return "of no single column" if given in NO_COLUMN else given


def percent(share: float | None) -> str:
    """Format a share; a dash where there is none."""
    return "–" if share is None else f"{share:.0%}"


def rarity(severity: float) -> str:
    """Say which share of normal records scores as high: "1 in 400" is easier to read than zeros."""
    if severity > FAR:  # calibration records cannot tell more
        return f"fewer than 1 in {number(10**FAR)}"
    share = 10**-severity
    return f"{percent(share)} of" if share >= 0.05 else f"1 in {number(float(f'{1 / share:.2g}'))}"


def counted(p_value: float) -> str:
    """Say the same by the p-value, which counts calibration records alone."""
    return rarity(-math.log10(p_value))


def misread(fault: Mapping[str, Any]) -> str:
    """Say what is wrong with a value of an address or a body, named as there and as on the page.

    Args:
        fault: one of pydantic's: loc, type, input, ctx, msg.
    """
    name = str(fault["loc"][-1])
    on_page = CHIP_NAMES.get(name, name)
    called = name if on_page == name else f"{name} ({on_page})"
    return f"{called}: {_why(name, fault)}"


def _why(name: str, fault: Mapping[str, Any]) -> str:
    given, bounds = short(repr(fault["input"]), LONGEST_TOLD), fault.get("ctx", {})
    match fault["type"]:
        case "literal_error":
            return f"{given} is not one of {bounds['expected']}"
        case "string_pattern_mismatch" | "value_error" if name in DAYS:
            return f"{given} is not a calendar day, written like 2026-01-31"
        case "int_parsing" | "int_parsing_size" | "int_from_float" | "int_type":
            return f"{given} is not a whole number"
        case "greater_than_equal":
            return f"{given} is less than {number(bounds['ge'])}"
        case "less_than_equal":
            return f"{given} is more than {number(bounds['le'])}"
        case "bool_parsing":
            return f"{given} is neither true nor false"
        case "string_too_long":
            return f"it is longer than {number(bounds['max_length'])} characters"
        case "string_pattern_mismatch":
            return "it contains a character that is not allowed"
        case "missing":
            return "it is missing"
        case _:
            return sentence_of(fault["msg"])


def when(at: datetime) -> str:
    """Format a time, as everywhere: 2026-01-31 04:05 UTC."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
