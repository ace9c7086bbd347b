"""What a rule promises and what was found, in words.

Belongs here: sentences, from a rule and from Great Expectations' result for it. Does not: how they look
(page.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from pipeline.config.contracts import BatchRule, RowRule

NAMES = {
    "missing_value": "missing value",
    "out_of_range": "out of range",
    "not_finite": "not finite",
    "not_in_set": "not in set",
    "pattern": "pattern",
    "duplicate_key": "duplicate key",
    "outside_period": "outside period",
    "columns": "columns",
    "row_count": "records",
    "share_set_aside": "set aside",
    "freshness": "freshness",
}
LISTED = 6
LONGEST = 80


def promise(rule: RowRule | BatchRule, landed_at: datetime | None = None) -> str:
    """Say what the rule asks of the data."""
    match rule.code:
        case "missing_value":
            return "never missing"
        case "not_finite":
            return "never infinite"
        case "out_of_range":
            return _bounds(rule.minimum, rule.maximum)
        case "not_in_set":
            values = rule.values or () if isinstance(rule, RowRule) else ()
            return f"one of {listed(map(repr, values))}" if values else "no value is allowed"
        case "pattern":
            return f"matches {rule.pattern}" if isinstance(rule, RowRule) else ""
        case "duplicate_key":
            return f"no two records with the same {' + '.join(rule.columns) or rule.column}"
        case "outside_period":
            return "within the batch's period"
        case "columns":
            return f"all {many(len(rule.columns), 'column')} of the contract"
        case "row_count":
            return f"{_bounds(rule.minimum, rule.maximum)} record{'' if (rule.maximum or rule.minimum) == 1 else 's'}"
        case "share_set_aside":
            return f"at most {share(rule.maximum or 0, 1)} of records"
        case "freshness":
            landed = f" when it landed at {landed_at:%Y-%m-%d %H:%M %Z}" if landed_at else ""
            return f"newest record at most {many(rule.maximum or 0, 'day')} old{landed}"


def observed(rule: RowRule | BatchRule, result: Mapping[str, Any]) -> str:
    """Say what Great Expectations found, from its result for the rule."""
    match rule.code:
        case "columns":
            return _columns(result)
        case "row_count":
            return many(result["observed_value"], "record")
        case "freshness":
            newest = result["observed_value"]
            return f"newest record of {newest}" if newest else "no accepted record has a time up to now"
        case _:
            n, total = result["unexpected_count"] or 0, result["element_count"]
            return f"{n:,} of {many(total, 'record')} ({share(n, total)})"


def share(part: float, whole: float) -> str:
    """Format a share in percent that never rounds something to nothing, or almost all to all."""
    percent = 100 * part / whole if whole else 0.0
    if 0 < percent < 0.01:
        return "< 0.01 %"
    if 99.99 < percent < 100:
        return "> 99.99 %"
    return f"{percent:.2f}".rstrip("0").rstrip(".") + " %"


def many(n: float, thing: str) -> str:
    return f"{_number(n)} {thing}{'' if n == 1 else 's'}"


def listed(items: Iterable[str]) -> str:
    """List the first few, and say how many more there are."""
    every = list(items)
    more = f" and {len(every) - LISTED} more" if len(every) > LISTED else ""
    return ", ".join(every[:LISTED]) + more


def shortened(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _bounds(low: float | None, high: float | None) -> str:
    if high is None:
        return f"at least {_number(low)}"
    return f"at most {_number(high)}" if low is None else f"between {_number(low)} and {_number(high)}"


def _number(value: float | None) -> str:
    return f"{value:,.15g}" if value is not None else ""


def _columns(result: Mapping[str, Any]) -> str:
    differences = result.get("details", {}).get("mismatched", {})
    parts = [f"{kind}: {listed(map(repr, names))}" for kind, names in differences.items()]
    return "; ".join(parts) or "as promised"
