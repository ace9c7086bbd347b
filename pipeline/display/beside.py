"""Prints what one record is compared with: what would clear its flag, similar and neighbouring records, other
model versions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from pipeline.display import columns, console, fitted, marked
from pipeline.numerals import from_text, number

if TYPE_CHECKING:
    from pipeline.review.compare import Clearing, Near
    from pipeline.review.queued import Whole
    from pipeline.review.record import Neighbour, Neighbours
    from pipeline.review.versions import Scored

MOST_COLUMNS = 6  # of neighbours
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")
LONGEST = 40  # characters of a value
DIGITS = 6  # of a fraction, as in a record's reasons


def print_beside(row: Whole, beside: Mapping[str, Any], quantities: Collection[str]) -> None:
    """Print what was asked for about a record, in the order it was looked up.

    Args:
        beside: those of clearing, nearest, neighbours and scored_by that were asked for.
        quantities: columns whose whole numbers are no codes.
    """
    printed: dict[str, Callable[[Whole, Any], None]] = {
        "clearing": partial(print_clearing, quantities=quantities),
        "nearest": partial(print_nearest, quantities=quantities),
        "neighbours": partial(print_neighbours, quantities=quantities),
        "scored_by": print_versions,
    }
    for name, found in beside.items():
        console().print()
        printed[name](row, found)


def print_clearing(row: Whole, found: Clearing, *, quantities: Collection[str]) -> None:
    """Print the smallest change after which a record would not have been flagged."""
    if not found.changes or found.score is None:
        console().print(f"what would clear the flag: {escape(found.why_not)}")
        return
    known = {*quantities, *(reason.column for reason in row.reasons if reason.is_quantity)}
    written = {one: from_text if one.column in known else str for one in found.changes}
    told = " and ".join(
        f"[bold]{escape(one.column)}[/bold] been [bold]{escape(write(one.needed))}[/bold] instead of {escape(write(one.observed))}"
        for one, write in written.items()
    )
    console().print(
        f"it would not have been flagged had {told} (anomaly_score {found.score:,.2f} nats, threshold {row.threshold:,.2f})"
    )


def print_nearest(row: Whole, found: Sequence[Near], *, quantities: Collection[str]) -> None:
    """Print the unflagged records of its batch that are most like it."""
    if not found:
        console().print("there is no unflagged record in its batch to compare with")
        return
    table = columns("normal record like it", "distance, 0 to 1", "differs in (this one's value)")
    for one in found:
        pairs = ((name, one.record.get(name), row.record.get(name)) for name in one.differs)
        differs = (
            f"{name} {_value(theirs, name in quantities)} ({_value(own, name in quantities)})"
            for name, theirs, own in pairs
        )
        table.add_row(escape(one.name), f"{one.distance:.2f}", escape("; ".join(differs) or "nothing"))
    console().print(table)


def print_neighbours(_: Whole, found: Neighbours, *, quantities: Collection[str]) -> None:
    """Print the records around it in time."""
    if len(found.rows) < 2:
        console().print(f"there is no other record {f'of {escape(found.of)} ' if found.of else ''}around it")
        return
    console().print(escape(f"records of {found.of or 'its batch'} before and after it"))
    names = found.columns[:MOST_COLUMNS]
    table = columns("record", *map(escape, names))
    table.columns[0].no_wrap = True
    for one in found.rows:
        values = (escape(_of_neighbour(one, name, name in quantities)) for name in names)
        key = escape(fitted(one.name, LONGEST)) + " ←" * one.is_this
        table.add_row(key, *values, style="bold" if one.is_this else None)
    console().print(table)


def _of_neighbour(one: Neighbour, name: str, is_quantity: bool) -> str:
    computed = one.derived.get(name)
    if name in one.record:
        return _value(one.record[name], is_quantity)
    return "missing" if computed is None else number(computed)


def _value(value: Any, is_quantity: bool) -> str:
    """Format a value of a record beside those of others, rounded; a time without fractions of a second."""
    if isinstance(value, float) and not value.is_integer():
        return number(value, DIGITS)
    text = marked(value, is_quantity)
    return text[:19].replace("T", " ") if TIME.match(text) else fitted(text, LONGEST)


def print_versions(row: Whole, found: Sequence[Scored]) -> None:
    """Print what registered model versions say of one record now; the one that scored it in bold."""
    if not found:
        console().print("no model version of this dataset is registered any more")
        return
    table = columns(
        "version",
        "trained",
        "severity",
        "anomaly_score",
        "threshold",
        "now",
        right=("severity", "anomaly_score", "threshold"),
    )
    for one in found:
        flagged = {None: "depends on its batch", True: "flagged", False: "not flagged"}[one.would_flag]
        table.add_row(
            f"{one.model_version} {', '.join(one.aliases)}".strip(),
            f"{one.trained_at:%Y-%m-%d %H:%M UTC}",
            "" if one.severity is None else f"{one.severity:.1f}",
            "" if one.anomaly_score is None else f"{one.anomaly_score:,.2f}",
            "" if one.threshold is None else f"{one.threshold:,.2f}",
            escape(one.why_not or flagged),
            style="bold" if one.model_version == row.model_version else None,
        )
    console().print(table)
