"""Prints what there is to say of flagged records: the queue, one record and why, suppression rules."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.padding import Padding

from pipeline.display import BESIDE, columns, console, fitted, marked, shown
from pipeline.numerals import from_text, number
from pipeline.results.views import reasons_text
from pipeline.review.parts import of_score, unnamed_share
from pipeline.storage.review_schema import NO_COLUMN

if TYPE_CHECKING:
    from rich.table import Table

    from pipeline.review.effects import RuleAtWork
    from pipeline.review.groups import Group, Size
    from pipeline.review.queued import Listed, Reason, Whole
    from pipeline.review.record import Derivation

NOT_STORED = "(not stored as it was scored)"
LEAST_SHARE = 0.005  # less would be printed as 0 %
WHY, NUMBERS = "why (observed, expected, share)", ("severity", "anomaly_score")
STANDING = {
    "any": "",
    "open": " without a verdict",
    "conflict": " on which reviewers differ",
}
OTHERS = {
    "sampled": "drawn at random from those not flagged: judging them tells what is missed (--kind sampled)",
    "cleared": "that a later scoring no longer flags (--kind cleared)",
}
OPTIONS = {"driver": "--driver", "model_version": "--model-version", "reviewer": "--reviewer"}
MOST_NAMED = 5  # other choices of a filter that lets nothing through
SHARE = (
    "the last share in brackets: how much of what makes the record odd would go if the column had its expected value; "
    "likely: how probable the model held an expected category"
)
LEGEND = (
    "explains: how much of what makes the record odd would go if the column had its expected value",
    "adds: nats that its own value adds to the score: how surprising it is given the others",
    "a wild value makes other columns look odd, too: they add to the score, but the wild one explains them",
)


def print_queue(
    found: Sequence[Listed],
    state: str,
    counted: Mapping[str, int] | None,
    *,
    has_more: bool,
    others: Mapping[str, Mapping[Any, int]] = MappingProxyType({}),
) -> None:
    """Print records of the review queue with their reasons.

    Args:
        counted: how many there are by kind, shown or not; None where they were searched for and not counted.
        others: where nothing was found: how many records other choices of a filter have.
    """
    out = console()
    if not found:
        judged = "" if state == "any" else "; --state any also shows those that were judged"
        out.print(f"no record in the queue matches{judged}")
        for name, choices in others.items():
            if choices:
                out.print(escape(f"with another {OPTIONS[name]}: {_choices(choices)}"))
    elif out.width < BESIDE:
        for row in found:
            which, day, key, severity, score, why, state = _listed(row)
            out.print(f"[bold]{which}[/bold]  {day}  severity {severity:>4}  score {score:>9}  {state}")
            out.print(Padding(f"{key}: {why}", (0, 0, 0, 4)))
    else:
        table = columns("id", "day", "record", *NUMBERS, WHY, "state", right=NUMBERS)
        for column in table.columns[:2]:
            column.no_wrap = True
        for row in found:
            table.add_row(*_listed(row))
        out.print(table)
    if any(row.reasons for row in found):
        out.print(f"[dim]{SHARE}[/dim]")
    if counted is not None and (told := _counted(counted, state)):
        console().print(told)
    if has_more:
        console().print(f"the first {len(found)} are shown; more: --limit, or the page: vaewatch review")


def _choices(choices: Mapping[Any, int]) -> str:
    """Those with most records, each with how many."""
    named = [f"{value} ({n:,})" for value, n in list(choices.items())[:MOST_NAMED]]
    more = f" and {len(choices) - MOST_NAMED:,} more" if len(choices) > MOST_NAMED else ""
    return f"{', '.join(named)}{more}"


def _listed(row: Listed) -> tuple[str, ...]:
    unnamed = {"flagged": "of no single column", "sampled": "not flagged: random sample"}
    why = reasons_text(row.reasons) or unnamed.get(row.kind, "no longer flagged")
    state = row.state if row.claim is None else f"{row.state}, {fitted(row.claim.by, 20)} is at it"
    return (
        row.anomaly_id,
        row.day,
        escape(fitted(row.name, 28)),
        f"{row.severity:.1f}",
        f"{row.anomaly_score:,.2f}",
        escape(fitted(why, 200)),
        escape(state),
    )


def _counted(counted: Mapping[str, int], state: str) -> str:
    """Put into words how many records match: those flagged, then the others and why they are in the queue."""
    n, are = counted.get("flagged", 0), STANDING.get(state, f" judged {state.replace('_', ' ')}")
    told = [f"{n:,} flagged record{'s' * (n != 1)}{are}"] if "flagged" in counted else []
    told += [f"{counted[kind]:,} {words}" for kind, words in OTHERS.items() if counted.get(kind)]
    return "; beside them ".join([told[0], ", ".join(told[1:])]) if told[1:] else "".join(told)


def print_groups(found: Sequence[Group], size: Size, since: str | None) -> None:
    """Print groups of open records that are odd alike, and the most severe record of each.

    Args:
        size: of all groups, shown or not, over the days from `since` on.
    """
    if not found:
        console().print("no open records")
        return
    out = console()
    table = columns("records", "dataset", "odd in", "days", "severest", "its id", right=("records",))
    for group in found:
        first, last = group.first_day, group.last_day
        days = first if first == last else f"{first} to {last}"
        odd_in = escape("no single column" if group.signature == NO_COLUMN else group.signature)
        severest, exemplar = f"{group.severest:.1f}", group.exemplar.anomaly_id
        if out.width < BESIDE:
            told = f"{group.n:,} of {group.dataset}, {days}; severest {severest}: {exemplar}"
            out.print(f"[bold]{odd_in}[/bold]", Padding(told, (0, 0, 0, 4)))
        table.add_row(f"{group.n:,}", group.dataset, odd_in, days, severest, exemplar)
    if out.width >= BESIDE:
        out.print(table)
    of_days = f"since {since}" if since else "of all days"
    few = f"; the largest {len(found)} are shown, more: --limit" if len(found) < size.n_groups else ""
    many = "s" * (size.n_groups != 1), "s" * (size.n_records != 1)
    told = f"{size.n_groups:,} group{many[0]} of {size.n_records:,} open record{many[1]} {of_days}{few}"
    console().print(told)
    console().print("label a whole group: vaewatch review label --group 'ODD IN' VERDICT, or --like ID")


def print_rules(found: Sequence[RuleAtWork], today: str) -> None:
    """Print suppression rules, what they hide and until when; those no longer in force are dimmed."""
    if not found:
        console().print("no rules; `vaewatch review rules preview` shows what one would hide")
        return
    table = columns(
        "rule",
        "dataset",
        "odd in",
        "and",
        "until",
        "hides",
        "confirmed alike",
        "why",
        "by",
        "ended",
        right=("hides", "confirmed alike"),
    )
    for rule in found:
        past = rule.ended_by or rule.ends_on < today
        table.add_row(
            str(rule.number),
            rule.dataset,
            escape(fitted(rule.signature or "any", 40)),
            escape(", ".join(f"{name} = {value}" for name, value in rule.conditions.items())),
            rule.ends_on,
            f"{rule.n_hidden:,}",
            f"{rule.n_confirmed:,}",
            escape(fitted(rule.note, 60)),
            escape(rule.by),
            escape(f"{rule.ended_at:%Y-%m-%d} by {rule.ended_by}" if rule.ended_at else ""),
            style="dim" if past else None,
        )
    console().print(table)


def print_one(
    row: Whole,
    derived: Mapping[str, Any],
    derivations: Sequence[Derivation],
    quantities: Collection[str],
    place: str,
) -> None:
    """Print everything about one flagged record.

    Args:
        quantities: columns whose whole numbers are no codes.
        derived: the values of its derived columns.
        derivations: how the derived columns among its reasons are computed.
        place: where it lies; empty where that is not known.
    """
    out, name = console(), row.name if row.name == row.record_key or not place else ""
    called = ", ".join(filter(None, [name, place and f"{place} (counted from 0)"]))
    out.print(f"[bold]{row.anomaly_id}[/bold]  batch {row.batch_id}, record {escape(called)}")
    out.print(
        f"severity {row.severity:.2f} (by the shape of the tail), p-value {row.p_value:.3g} (by count alone); anomaly_score {row.anomaly_score:,.2f} nats, "
        f"threshold {row.threshold:,.2f}; model version {row.model_version}"
    )
    out.print(_why(row, derived, quantities))
    for one in derivations:
        out.print(f"[dim]{escape(one.column)} = {escape(one.sql)}[/dim]")
    for line in LEGEND[: 3 if row.kl_weight is not None else 1] if row.reasons else ():
        out.print(f"[dim]{line}[/dim]")
    for given in row.verdicts:
        stands = "" if given.number in row.holding or given.withdraws else ", no longer counts"
        note = f": {given.note}" if given.note else ""
        out.print(
            f"{given.decided_at:%Y-%m-%d %H:%M UTC} {escape(given.by)}: [bold]{given.verdict}[/bold]{escape(note)}{stands}"
        )
    out.print(escape(_holds(row)))


def _holds(row: Whole) -> str:
    """Say what the verdicts come to, and whose they are."""
    whose = ", ".join(given.by for given in row.verdicts if given.number in row.holding)
    match row.state:
        case "open":
            return "open: no verdict holds"
        case "conflict":
            return f"reviewers differ ({whose}): no verdict counts until they agree, or somebody gives one with --settle"
        case _:
            return f"what holds: {row.state} ({whose})"


def _why(row: Whole, derived: Mapping[str, Any], quantities: Collection[str]) -> Table:
    """Return a table: a line per column, those that explain most first, what is of no column, and the sum."""
    why = {reason.column: reason for reason in row.reasons}
    parts = of_score(row)
    adds = {part.column or part.kind: f"{part.nats:,.2f}" for part in parts}
    names = ["column", "observed", "expected", "95 % interval", "explains", *(["adds"] if parts else [])]
    table = columns(*names, right=("explains", "adds"))
    table.columns[0].no_wrap = True
    named = [part.column for part in parts if part.column]  # derived columns are not in the record
    for name in dict.fromkeys([*why, *row.record, *named]):
        reason = why.get(name)
        value = row.record.get(name, reason.observed if reason else _rounded(derived.get(name, NOT_STORED)))
        cells = [
            escape(name),
            escape(fitted(_observed(value, reason, name in quantities), 60)),
            *_expected(reason),
        ]
        table.add_row(*cells, *([adds.get(name, "")] if parts else []), style="bold" if reason else None)
    share = row.kl_share or 0.0
    whole = "of no single column: KL divergence" if share >= LEAST_SHARE else "KL divergence"
    for kind, name, explained in (
        ("others", "other columns", unnamed_share(row)),
        ("kl", f"{whole}{_weight(row)}", share),
    ):
        if explained >= LEAST_SHARE or kind in adds:
            told = f"{explained:.0%}" if explained >= LEAST_SHARE else ""
            table.add_row(f"({name})", "", "", "", told, *([adds.get(kind, "")] if parts else []))
    if parts:
        table.add_row("anomaly_score", "", "", "", "", f"{row.anomaly_score:,.2f}", style="bold")
    return table


def _observed(value: Any, reason: Reason | None, is_quantity: bool) -> str:
    """Format a value of the record, marking thousands where the columns to its right do."""
    if reason is None:
        return marked(value, is_quantity)
    if not reason.is_quantity:
        return shown(value)
    return from_text(value) if isinstance(value, str) else marked(value, True)


def _rounded(value: Any) -> Any:
    """Format a computed value with the digits that mean something."""
    return number(value) if isinstance(value, float) else value


def _expected(reason: Reason | None) -> list[str]:
    """Return what a reason says beside the observed value: expected value, interval, share."""
    if reason is None:
        return ["", "", ""]
    low, high = reason.low, reason.high  # text where infinite
    interval = "" if low is None or high is None else f"{number(float(low), 5)} … {number(float(high), 5)}"
    return [escape(fitted(reason.expected_text, 60)), interval, f"{reason.share:.0%}"]


def _weight(row: Whole) -> str:
    """Describe the weight of the KL divergence that verdicts taught, if any."""
    weight = row.kl_weight
    return "" if weight in {None, 1.0} else f", {row.kl_divergence:,.2f} × {weight:.3g}"
