"""Printed of flagged records: the queue, one record and why, suppression rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from pipeline.display import console, shortened
from pipeline.review.schema import NO_COLUMN
from pipeline.views import reasons_text

if TYPE_CHECKING:
    from pipeline.review.groups import Group

LEAST_SHARE = 0.005  # of why: less is said as 0 %


def print_flagged(found: list[dict[str, Any]], n_all: int = 0) -> None:
    """Flagged records with their reasons. n_all: how many there are, where these are the first of them."""
    if not found:
        console().print("nothing flagged")
        return
    table = Table("id", "batch", "record", "severity", "score", "why (observed, expected, share)", box=None)
    judged = any(row.get("verdict") for row in found)
    if judged:
        table.add_column("verdict")
    for column in table.columns[:2]:
        column.no_wrap = True
    for row in found:
        table.add_row(
            row["anomaly_id"],
            row["batch_id"],
            escape(shortened(row["record_key"], 28)),
            f"{row['severity']:.1f}",
            f"{row['anomaly_score']:.4g}",
            escape(shortened(reasons_text(row["reasons"]), 200)),
            *([row["verdict"] or ""] if judged else []),
        )
    console().print(table)
    if len(found) < n_all:
        console().print(f"the {len(found)} most severe of {n_all}; more: vaewatch review list")


def print_queue(
    found: list[dict[str, Any]], state: str, counted: Mapping[str, int] | None, *, has_more: bool
) -> None:
    """Records of the review queue with their reasons.

    counted: how many there are by kind, those that are not shown among them; None where they were looked up, not counted.
    """
    if not found:
        console().print("nothing is like that in the queue (--state any shows what was judged, too)")
        return
    table = Table(
        "id", "day", "record", "severity", "score", "why (observed, expected, share)", "state", box=None
    )
    for column in table.columns[:2]:
        column.no_wrap = True
    for row in found:
        why = reasons_text(row["reasons"]) or (
            "of no single column" if row["kind"] == "flagged" else "not flagged: random sample"
        )
        table.add_row(
            row["anomaly_id"],
            row["day"],
            escape(shortened(row["record_key"], 28)),
            f"{row['severity']:.1f}",
            f"{row['anomaly_score']:.4g}",
            escape(shortened(why, 200)),
            row["state"],
        )
    console().print(table)
    if counted is not None:
        words = {"sampled": "of the random sample", "cleared": "no longer flagged"}
        told = (
            [f"{counted['flagged']} {'flagged' if state == 'any' else state}"] if "flagged" in counted else []
        )
        told += [f"{counted[kind]} {text}" for kind, text in words.items() if counted.get(kind)]
        console().print(", ".join(told))
    if has_more:
        console().print(f"the first {len(found)} are shown; more: --limit, or the page: vaewatch review")


def print_groups(found: Sequence[Group]) -> None:
    """Open records that are odd alike, and the most severe of each group."""
    if not found:
        console().print("no open records")
        return
    table = Table("records", "dataset", "odd in", "days", "severest", "its id", box=None)
    table.columns[0].justify = "right"
    for group in found:
        first, last = group.first_day, group.last_day
        table.add_row(
            str(group.n),
            group.dataset,
            escape("no single column" if group.signature == NO_COLUMN else group.signature),
            first if first == last else f"{first} to {last}",
            f"{group.severest:.1f}",
            group.exemplar["anomaly_id"],
        )
    console().print(table)
    console().print("label a whole group: vaewatch review label --group 'ODD IN' VERDICT, or --like ID")


def print_rules(found: list[dict[str, Any]], today: str) -> None:
    """Suppression rules, what they hide and until when; those that hold no longer are faint."""
    if not found:
        console().print("no rules; `vaewatch review rules preview` shows what one would hide")
        return
    table = Table("rule", "dataset", "odd in", "and", "until", "why", "by", "", box=None)
    for rule in found:
        past = rule["ended_by"] or rule["ends_on"] < today
        table.add_row(
            str(rule["number"]),
            rule["dataset"],
            escape(shortened(rule["signature"] or "any", 40)),
            escape(", ".join(f"{name} = {value}" for name, value in rule["conditions"].items())),
            rule["ends_on"],
            escape(shortened(rule["note"], 60)),
            escape(rule["by"]),
            escape(f"ended by {rule['ended_by']}" if rule["ended_by"] else ""),
            style="dim" if past else None,
        )
    console().print(table)


def print_one(row: dict[str, Any]) -> None:
    """One flagged record whole."""
    out = console()
    out.print(
        f"[bold]{row['anomaly_id']}[/bold]  batch {row['batch_id']}, record {escape(row['record_key'])}"
    )
    out.print(
        f"severity {row['severity']:.2f}, p-value {row['p_value']:.3g}; anomaly score {row['anomaly_score']:.5g} nats "
        f"(threshold {row['threshold']:.5g}), model version {row['model_version']}"
    )
    if sum_text := _sum_text(row):
        out.print(escape(sum_text))
    why = {reason["column"]: reason for reason in row["reasons"]}
    table = Table("column", "observed", "expected", "95 % interval", "share", box=None)
    for name, value in sorted(
        row["record"].items(), key=lambda cell: -(why.get(cell[0]) or {"share": 0})["share"]
    ):
        reason = why.get(name)
        interval = (
            f"{reason['low']:.5g} … {reason['high']:.5g}" if reason and reason["low"] is not None else ""
        )
        shares = (
            [escape(str(reason["expected"])), interval, f"{reason['share']:.0%}"] if reason else ["", "", ""]
        )
        table.add_row(
            escape(name), escape(shortened(str(value), 60)), *shares, style="bold" if reason else None
        )
    if (row["kl_share"] or 0) >= LEAST_SHARE:
        table.add_row("(of no single column)", "", "", "", f"{row['kl_share']:.0%}")
    out.print(table)
    for given in row["verdicts"]:
        stands = "" if given["number"] in row["holding"] or given["withdraws"] else ", no longer counts"
        note = f": {given['note']}" if given["note"] else ""
        out.print(
            f"{given['decided_at']:%Y-%m-%d %H:%M UTC} {escape(given['by'])}: [bold]{given['verdict']}[/bold]{escape(note)}{stands}"
        )


def _sum_text(row: dict[str, Any]) -> str:
    """A score as a sum; empty where its parts were not kept."""
    from pipeline.review.parts import of_score

    named = {"others": "other columns" if row["terms"] else "all columns", "kl": "KL divergence"}
    told = [f"{named.get(part.kind, part.column)} {part.nats:.2f}" for part in of_score(row)]
    weight = row["kl_weight"]
    note = f" (KL divergence {row['kl_divergence']:.2f} × {weight:.3g})" if weight not in {None, 1.0} else ""
    return f"{row['anomaly_score']:.2f} = {' + '.join(told)}{note}".replace("+ -", "- ") if told else ""
