"""What the command line prints: tables a person can read.

Belongs here: layout and colour. Does not: where the numbers come from (views.py, steps/).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from pipeline.receipts import Receipt, oddness
from pipeline.views import reasons_text

if TYPE_CHECKING:
    from pipeline.evaluation import Decision, Evidence
    from pipeline.review.versions import Scored

SHOWN = 30
WOULD = {"promote": "would pass", "refuse": "would be refused", "wait": "would wait"}
EVENT = {
    "promoted": "green",
    "refused": "red",
    "rolled back": "yellow",
    "threshold": "yellow",
    "trained": "dim",
    "passed": "dim",
}
SAID = {"likely": "likely because", "since": "changed since"}
STYLE = {"refused": "red", "failed": "red", "scored": "green", "accepted": "cyan", "waiting": "yellow"}


def console(*, stderr: bool = False) -> Console:
    """A console as wide as the terminal, or wide enough where there is none."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else 140, highlight=False)


def print_receipt(receipt: Receipt) -> None:
    """One step's outcome in a line, and what went wrong, if anything, in a line each."""
    counts = [
        f"{len(receipt.with_outcome(outcome))} {outcome}"
        for outcome in ("accepted", "scored", "refused", "failed", "waiting", "unchanged")
        if receipt.with_outcome(outcome)
    ]
    version = f"model version {receipt.model_version}" if receipt.model_version is not None else ""
    alias = f"is {receipt.alias}" if receipt.alias else ""
    facts = "; ".join(part for part in [", ".join(counts), f"{version} {alias}".strip()] if part)
    findings = receipt.details.get("findings", ())
    note = "" if findings else receipt.details.get("reason", "").removeprefix(f"{receipt.outcome}: ")
    console().print(
        f"[bold]{receipt.step}[/bold] {escape(receipt.dataset)}: {receipt.outcome}{': ' if facts else ''}{facts}"
        f"{': ' + escape(note) if note else ''}"
    )
    for heading in ("likely", "since"):
        for line in receipt.details.get(heading, ()):
            console().print(f"  {SAID[heading]}: {escape(line)}")
    if findings:
        print_gates(findings)
        print_reasons(findings, receipt.details["cause"])
    for line in receipt.details.get("notes", ()):
        console().print(f"  [yellow]note[/yellow] {escape(line)}")
    if next_step := receipt.details.get("next"):
        console().print(f"  next: {escape(next_step)}")
    for batch in receipt.with_outcome("refused", "failed"):
        console().print(f"  [red]{batch.batch_id} {batch.outcome}[/red]: {escape(batch.reason)}")


def print_pruning(found: dict[str, Any]) -> None:
    """Which model versions stay and why, what goes, and how much room that makes."""
    table = Table("version", "", "why, or how large", box=None)
    goes = "[red]would go[/red]" if found["dry_run"] else "[red]gone[/red]"
    rows = [(number, "stays", "; ".join(why)) for number, why in found["kept"].items()]
    rows += [
        (one["version"], goes, f"run {one['run_id'][:8]}, {_bytes(one['n_bytes'])}")
        for one in found["removed"]
    ]
    for number, stays, why in sorted(rows, key=lambda row: row[0] or 0):
        table.add_row(str(number or "none"), stays, escape(why))
    if rows:
        console().print(table)
    for folder in found["local"]:
        console().print(f"{goes}: {escape(folder)}")
    room = f"{_bytes(found['n_bytes'])} of models and runs, {_bytes(found['n_bytes_local'])} here"
    nothing = not found["removed"] and not found["local"]
    console().print(
        "nothing is to go" if nothing else f"{room}{' would be freed' if found['dry_run'] else ' freed'}"
    )


def print_gates(findings: Sequence[Mapping[str, Any]]) -> None:
    """The gates of an evaluation, a sentence each; those not judged together, by reason.

    findings: decision.Finding as dictionaries.
    """
    table = Table("gate", "", "what was measured, and what passes (chance is allowed for on top)", box=None)
    unjudged: dict[str, list[str]] = {}
    for finding in findings:
        verdict, advisory = finding["verdict"], finding["level"] == "advisory"
        if verdict == "not judged":
            unjudged.setdefault(finding["reason"], []).append(finding["gate"])
            continue
        style = "green" if verdict == "passed" else "yellow" if advisory else "red"
        told = f"{finding['sentence']}{' (advisory)' if advisory else ''}"
        table.add_row(finding["gate"], f"[{style}]{verdict}[/]", escape(told))
    console().print(table)
    for reason, names in unjudged.items():
        console().print(f"  [dim]not judged: {', '.join(names)} ({escape(reason)})[/dim]")


def print_reasons(findings: Sequence[Mapping[str, Any]], cause: str) -> None:
    """Why required gates failed, and what is likely behind it."""
    refusing = [f for f in findings if f["verdict"] == "failed" and f["level"] == "required"]
    for finding in refusing:
        console().print(f"  [red]{finding['gate']}[/red]: {escape(finding['reason'])}")
    if cause:
        console().print(f"  [bold]{'likely' if refusing else 'waits'}[/bold]: {escape(cause)}")


def print_comparison(evidence: Evidence, decision: Decision) -> None:
    """Two versions side by side, what follows, and records that they disagree on."""
    one, other = evidence.challenger, evidence.champion
    out = console()
    names = f"version {one.version}", f"version {other.version}" if other else ""
    beside = f"against {names[1]}" if other else "alone"
    out.print(
        f"[bold]{escape(evidence.dataset)}[/bold] version {one.version} {beside}, on batches {evidence.first_batch} to "
        f"{evidence.last_batch}: {evidence.n_holdout} records that neither has seen; flags that differ are of {evidence.n_newest} records of the newest days"
    )
    print_gates([asdict(finding) for finding in decision.findings])
    kinds = Table("injected anomalies found", *names, box=None)
    for column in kinds.columns[1:]:
        column.justify = "right"
    for kind, share in one.recall_of.items():
        kinds.add_row(kind, f"{share:.1%}", f"{other.recall_of[kind]:.1%}" if other else "")
    if one.recall_of:
        out.print(kinds)
    print_reasons([asdict(finding) for finding in decision.findings], decision.cause)
    out.print(f"[bold]{names[0]} {WOULD[decision.outcome]}{f' beside {names[1]}' if other else ''}[/bold]")
    if evidence.churn and evidence.churn.examples:
        print_disagreements(evidence.churn.examples, *names)


def print_disagreements(examples: Sequence[Mapping[str, Any]], one: str, other: str) -> None:
    """Records that one of two versions flags."""
    table = Table("flagged by one alone", "batch", "record", f"p-value, {one}", other, box=None)
    for row in examples:
        p_values = (f"{row[name]:.2g}" for name in ("p_value", "p_value_champion"))
        table.add_row(
            one if row["by"] == "challenger" else other,
            row["batch_id"],
            escape(_short(str(row["record_key"]), 40)),
            *p_values,
        )
    console().print(table)


def print_history(events: Sequence[Mapping[str, Any]]) -> None:
    """What became of each version, newest last."""
    if not events:
        console().print("nothing was trained yet")
        return
    table = Table("when", "what", "version", "who", "why", box=None)
    for column in table.columns[:4]:
        column.no_wrap = True
    for event in events:
        replaced = f", after {event['replaced']}" if event.get("replaced") else ""
        evidence = ""
        if event["what"] == "promoted":
            at = _when(event["evaluated_at"])
            evidence = f" (evidence of {at})" if at else " (not evaluated)"
        table.add_row(
            _when(event["at"]),
            f"[{EVENT.get(event['what'], '')}]{event['what']}[/]",
            f"{event['version']}{replaced}",
            escape(str(event["by"])),
            escape(_short(f"{event['reason'].removeprefix('refused: ')}{evidence}", 300)),
        )
    console().print(table)


def print_status(found: list[dict[str, Any]], *, whole: bool) -> None:
    """Datasets, and the batches of the one that was asked for."""
    if not found:
        console().print(
            "no datasets in this place (VAEWATCH_DATASETS, default dags/datasets): write one with `vaewatch init FOLDER`"
        )
    for dataset in found:
        champion = f"version {dataset['champion']}" if dataset["champion"] else "none yet"
        counts = (
            ", ".join(f"{n} {status}" for status, n in sorted(dataset["counts"].items())) or "no batches yet"
        )
        console().print(
            f"[bold]{escape(dataset['dataset'])}[/bold]  champion: {champion}; batches: {counts}; "
            f"records: {dataset['n_read']} read, {dataset['n_accepted']} accepted, "
            f"{dataset['n_read'] - dataset['n_accepted']} set aside or refused, {dataset['n_flagged']} flagged"
        )
        if whole:
            print_batches(dataset["batches"])
            console().print(f"tables: {dataset['tables']}")


def print_batches(batches: Sequence[dict[str, Any]]) -> None:
    """One line a batch: what was read, accepted, set aside and flagged, by which model at which threshold."""
    table = Table(
        "batch", "status", "read", "accepted", "set aside", "flagged", "model", "threshold", "note", box=None
    )
    for column in table.columns[2:8]:
        column.justify = "right"
    for column in table.columns[:8]:
        column.no_wrap = True  # a narrow terminal costs the note its line, not the batch its name
    if len(batches) > SHOWN:
        console().print(f"the newest {SHOWN} of {len(batches)} batches (all of them: --json)")
    for batch in batches[-SHOWN:]:
        aside = ", ".join(f"{reason} {n}" for reason, n in batch["set_aside"].items())
        odd = oddness(batch["above_usual"]) if batch["is_odd"] else ""
        note = batch["reason"] or "; ".join(filter(None, [odd, *batch["notes"], aside]))
        threshold = batch["threshold"]
        table.add_row(
            batch["batch_id"],
            f"[{STYLE.get(batch['status'], '')}]{batch['status']}[/]",
            str(batch["n_read"]),
            str(batch["n_accepted"]),
            str(batch["n_set_aside"]),
            "" if batch["n_flagged"] is None else str(batch["n_flagged"]),
            "" if batch["model_version"] is None else str(batch["model_version"]),
            "" if threshold is None else f"{threshold:.4g}",
            escape(_short(note, 60)),
        )
    console().print(table)


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
            escape(_short(row["record_key"], 28)),
            f"{row['severity']:.1f}",
            f"{row['anomaly_score']:.4g}",
            escape(_short(reasons_text(row["reasons"]), 200)),
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
            escape(_short(row["record_key"], 28)),
            f"{row['severity']:.1f}",
            f"{row['anomaly_score']:.4g}",
            escape(_short(why, 200)),
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
            escape(_short(rule["signature"] or "any", 40)),
            escape(", ".join(f"{name} = {value}" for name, value in rule["conditions"].items())),
            rule["ends_on"],
            escape(_short(rule["note"], 60)),
            escape(rule["by"]),
            escape(f"ended by {rule['ended_by']}" if rule["ended_by"] else ""),
            style="dim" if past else None,
        )
    console().print(table)


def print_lines(lines: Iterable[tuple[str, str]]) -> None:
    """Names and what belongs to them, a line each."""
    table = Table("", "", box=None, show_header=False)
    for name, text in lines:
        table.add_row(escape(name), escape(text))
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
        table.add_row(escape(name), escape(_short(str(value), 60)), *shares, style="bold" if reason else None)
    if row["kl_share"] is not None:
        table.add_row("(no single column)", "", "", "", f"{row['kl_share']:.0%}")
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


def print_versions(found: Sequence[Scored]) -> None:
    """What registered model versions say of one record now."""
    if not found:
        console().print("no model version of this dataset is registered any more")
        return
    table = Table("version", "trained", "severity", "score", "threshold", "now", box=None)
    for one in found:
        flagged = {None: "depends on its batch", True: "flagged", False: "not flagged"}[one.would_flag]
        table.add_row(
            f"{one.model_version} {', '.join(one.aliases)}".strip(),
            f"{one.trained_at:%Y-%m-%d %H:%M UTC}",
            "" if one.severity is None else f"{one.severity:.1f}",
            "" if one.anomaly_score is None else f"{one.anomaly_score:.5g}",
            "" if one.threshold is None else f"{one.threshold:.5g}",
            escape(one.why_not or flagged),
        )
    console().print(table)


def print_quarantined(found: list[dict[str, Any]]) -> None:
    """Batches with something set aside."""
    if not found:
        console().print("nothing is set aside")
        return
    table = Table("batch", "status", "read", "set aside", "why", box=None)
    for row in found:
        why = row["reason"] or ", ".join(f"{reason} {n}" for reason, n in row["set_aside"].items())
        table.add_row(
            row["batch_id"], row["status"], str(row["n_read"]), str(row["n_set_aside"]), escape(why)
        )
    console().print(table)


def print_set_aside(found: dict[str, Any]) -> None:
    """Records of one batch that were set aside."""
    out = console()
    out.print(
        f"[bold]{found['batch_id']}[/bold] {found['status']}: {found['n_set_aside']} of {found['n_read']} records set aside"
    )
    if found["reason"]:
        out.print(f"  {escape(found['reason'])}")
    table = Table("row", "record", "reasons", "values", box=None)
    for row in found["records"]:
        blamed = [name for reason in row["reasons"] for name in reason.partition(":")[2].split("+")]
        names = dict.fromkeys([*(n for n in blamed if n in row["record"]), *row["record"]])
        values = ", ".join(f"{name} {row['record'][name]}" for name in names)
        table.add_row(
            str(row["row_number"]),
            escape(_short(row["record_key"], 28)),
            ", ".join(row["reasons"]),
            escape(_short(values, 120)),
        )
    if found["records"]:
        out.print(table)
    if len(found["records"]) < found["n_set_aside"] and found["records"]:
        out.print(f"the first {len(found['records'])} of {found['n_set_aside']}; more: --limit")
    out.print(f"report: {found['report']}")


def print_findings(findings: list[dict[str, Any]]) -> None:
    """What the doctor found."""
    for finding in findings:
        mark = "[green]ok  [/green]" if finding["ok"] else "[red]mend[/red]"
        console().print(f"{mark} {escape(finding['what'])}: {escape(finding['found'])}")


@contextmanager
def training_progress(*, show: bool) -> Iterator[Callable[[Any], None]]:
    """A progress bar for training, on standard error."""
    columns = (TextColumn("  training"), BarColumn(), TextColumn("{task.fields[note]}"), TimeElapsedColumn())
    with Progress(*columns, console=console(stderr=True), transient=True, disable=not show) as progress:
        task = progress.add_task("training", note="", start=True)

        def advance(now: Any) -> None:
            progress.update(task, total=now.steps, completed=now.step, note=f"loss {now.loss:.3f} nats")

        yield advance


def _bytes(n: int) -> str:
    return f"{n / 2**20:.1f} MiB" if n >= 2**20 else f"{n / 2**10:.1f} KiB"


def _when(at: str) -> str:
    """A time of the registry's, which are in UTC."""
    return f"{at[:16].replace('T', ' ')} UTC" if at else ""


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
