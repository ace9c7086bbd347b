"""Printed of models: gates, comparisons, history, what pruning removes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from pipeline.display import as_bytes, console, in_utc, shortened

if TYPE_CHECKING:
    from pipeline.evaluation import Decision, Evidence

WOULD = {"promote": "would pass", "refuse": "would be refused", "wait": "would wait"}
DECIDED = {"promote": "passed", "refuse": "refused", "wait": "in its shadow"}
N_EXAMPLES = 5  # records that two versions disagree on; the review page has more
EVENT = {
    "promoted": "green",
    "refused": "red",
    "rolled back": "yellow",
    "threshold": "yellow",
    "trained": "dim",
    "passed": "dim",
}


def print_pruning(found: dict[str, Any]) -> None:
    """Which model versions stay and why, what goes, and how much room that makes."""
    table = Table("version", "", "why, or how large", box=None)
    goes = "[red]would go[/red]" if found["dry_run"] else "[red]gone[/red]"
    rows = [(number, "stays", "; ".join(why)) for number, why in found["kept"].items()]
    rows += [
        (one["version"], goes, f"run {one['run_id'][:8]}, {as_bytes(one['n_bytes'])}")
        for one in found["removed"]
    ]
    for number, stays, why in sorted(rows, key=lambda row: row[0] or 0):
        table.add_row(str(number or "none"), stays, escape(why))
    if rows:
        console().print(table)
    for folder in found["local"]:
        console().print(f"{goes}: {escape(folder)}")
    room = f"{as_bytes(found['n_bytes'])} of models and runs, {as_bytes(found['n_bytes_local'])} here"
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
        print_disagreements(evidence.churn.examples[:N_EXAMPLES], *names)


def print_disagreements(examples: Sequence[Mapping[str, Any]], one: str, other: str) -> None:
    """Records that one of two versions flags."""
    table = Table("flagged by one alone", "batch", "record", f"p-value, {one}", other, box=None)
    for row in examples:
        p_values = (f"{row[name]:.2g}" for name in ("p_value", "p_value_champion"))
        table.add_row(
            one if row["by"] == "challenger" else other,
            row["batch_id"],
            escape(shortened(str(row["record_key"]), 40)),
            *p_values,
        )
    console().print(table)


def print_versions(versions: Sequence[Mapping[str, Any]]) -> None:
    """A line a version, newest last: what it is, what it learned, how it measured, and why it stays."""
    if not versions:
        console().print("nothing was trained yet")
        return
    table = Table(
        "version",
        "",
        "trained",
        "on batches",
        "records",
        "threshold",
        "gates",
        "measured on",
        "pruning",
        box=None,
    )
    for column in table.columns[:6]:
        column.no_wrap = True
    for column in table.columns[4:6]:
        column.justify = "right"
    for version in versions:
        metrics, kept = version["metrics"], [why for why in version["kept"] if why not in version["aliases"]]
        learned = sum(metrics.get(name, 0) for name in ("n_training", "n_calibrating"))
        stays = "keeps it" + (f": {'; '.join(kept)}" if kept else "")
        table.add_row(
            str(version["version"]),
            f"[green]{', '.join(version['aliases'])}[/green]",
            in_utc(version["trained_at"]),
            escape(version["window"].replace("..", " … ")),
            f"{learned:,.0f}" if learned else "",
            _rounded(metrics.get("threshold"), ".2f"),
            f"{DECIDED.get(version['decision'], 'not evaluated')}{', rejected' if version['rejected_by'] else ''}",
            _measured_on(version["holdout"], metrics),
            escape(stays) if version["kept"] else "[yellow]takes it[/yellow]",
        )
    console().print(table)
    console().print(
        "[dim]holdout: records that no version learned; finds: of the anomalies injected into them, at the version's threshold, which the review "
        "budget sets; nats a record (negative ELBO), in the columns' own units. calibration: on the version's own days and in its own units, as the "
        "threshold is. Holdouts of two nights differ: which version is better says vaewatch compare[/dim]"
    )


def _measured_on(holdout: Mapping[str, float], calibration: Mapping[str, float]) -> str:
    """What was measured of a version, and on what: the holdout where it was judged, else the records that
    calibrated it.
    """
    recall = holdout.get("recall")
    nats = holdout.get("negative_elbo") if holdout else calibration.get("calibration_negative_elbo")
    said = [f"finds {recall:.0%}"] if recall is not None else []
    said += [f"{nats:.2f} nats"] if nats is not None else []
    return f"{'holdout' if holdout else 'calibration'}: {', '.join(said) or 'too few records'}"


def _rounded(number: float | None, style: str) -> str:
    return "" if number is None else format(number, style)


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
            at = in_utc(event["evaluated_at"])
            evidence = f" (evidence of {at})" if at else " (not evaluated)"
        table.add_row(
            in_utc(event["at"]),
            f"[{EVENT.get(event['what'], '')}]{event['what']}[/]",
            f"{event['version']}{replaced}",
            escape(str(event["by"])),
            escape(shortened(f"{event['reason'].removeprefix('refused: ')}{evidence}", 300)),
        )
    console().print(table)
