"""Prints what there is to say of models: gates, comparisons, history, what pruning removes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from pipeline.display import LONGEST, as_bytes, columns, console, fitted, in_utc, print_lines, shortened
from pipeline.evaluation.decision import OUTCOME, WOULD
from pipeline.evaluation.told import bare, made_of, told
from pipeline.numerals import number
from pipeline.results.views import reasons_text
from pipeline.review.queued import Reason

if TYPE_CHECKING:
    from pipeline.evaluation.decision import Decision
    from pipeline.evaluation.told import Row, Told
    from pipeline.steps.comparing import Comparison
    from pipeline.steps.receipts import Pruned

EVENT = {
    "promoted": "green",
    "refused": "red",
    "rolled back": "yellow",
    "threshold": "yellow",
    "trained": "dim",
    "passed": "dim",
}


def print_pruning(found: Pruned) -> None:
    """Print which model versions stay and why, what goes, and how much space that frees."""
    table = Table("version", "", "why, or how large", box=None)
    goes = "[red]would go[/red]" if found.dry_run else "[red]gone[/red]"
    rows = [
        *((number, "stays", "; ".join(why)) for number, why in found.kept.items()),
        *((one.version, goes, f"run {one.run_id[:8]}, {as_bytes(one.n_bytes)}") for one in found.removed),
    ]
    for version, stays, why in sorted(rows, key=lambda row: row[0] or 0):
        table.add_row(str(version or "none"), stays, escape(why))
    if rows:
        console().print(table)
    for folder in found.local:
        console().print(f"{goes}: {escape(folder)}")
    if n_files := found.n_files_replaced:
        console().print(
            f"{goes}: {'a file' if n_files == 1 else f'{n_files} files'} of replaced rows in the tables"
        )
    here = as_bytes(found.n_bytes_local + found.n_bytes_replaced)
    room = f"{as_bytes(found.n_bytes)} of models and runs, {here} of other files"
    nothing = not found.removed and not found.local and not n_files
    console().print(
        "nothing to remove" if nothing else f"{room}{' would be freed' if found.dry_run else ' freed'}"
    )


def print_gates(rows: Sequence[Row], heads: tuple[str, str]) -> None:
    """Print the gates of an evaluation, a row each; those not judged are grouped by reason."""
    table = columns("gate", "level", "outcome", *heads, "what is measured; what passes", right=heads[:1])
    for column in table.columns[:3]:
        column.no_wrap = True
    unjudged: dict[str, list[str]] = {}
    for row in rows:
        if row.verdict == "not judged":
            unjudged.setdefault(row.reason, []).append(row.gate)
            continue
        style = "green" if row.verdict == "passed" else "yellow" if row.level == "advisory" else "red"
        level, outcome = f"[dim]{row.level}[/dim]", f"[{style}]{row.verdict}[/]"
        noted = f"; {row.reason}" if row.verdict == "passed" and row.reason else ""
        told = escape(f"{row.what}; {row.bound}{noted}")
        table.add_row(row.gate, level, outcome, row.value, escape(row.beside), told)
    console().print(table)
    for reason, names in unjudged.items():
        console().print(f"  [dim]not judged: {', '.join(names)} ({escape(reason)})[/dim]")


def print_reasons(decision: Decision) -> None:
    """Print why required gates failed, the likely cause, and what a person can do."""
    refusing = [finding for finding in decision.findings if finding.refuses]
    for finding in refusing:
        console().print(f"  [red]{finding.gate}[/red]: {escape(finding.reason)}")
    if decision.cause:
        console().print(f"  [bold]{'likely' if refusing else 'waits'}[/bold]: {escape(decision.cause)}")
    print_ways(decision.ways)


def print_ways(ways: Sequence[str]) -> None:
    """Print what a person can do about a refusal."""
    for way in ways:
        console().print(f"  [bold]can be done[/bold]: {escape(way)}")


def print_comparison(found: Comparison) -> None:
    """Print two versions side by side, the decision, and records that they disagree on."""
    said, decision, out = found.told, found.decision, console()
    one, other = said.heads
    alone = f"alone: {found.evidence.incomparable or 'no version serves'}"
    beside = f"beside {other}" if found.evidence.champion else escape(alone)
    out.print(
        f"[bold]{escape(found.evidence.dataset)} {one} {WOULD[decision.outcome]}[/bold] {beside}: {escape(said.sentence)}"
    )
    out.print(f"\nmeasured on {said.measured_on}\n")
    print_gates(said.rows, said.heads)
    for note in decision.notes:
        out.print(f"  [yellow]note[/yellow] {escape(note)}")
    _print_beside("injected anomalies found", said.heads, said.kinds)
    _print_disagreements(said)
    _print_beside("made of", said.heads, [*made_of(found.challenger, found.champion), *said.settings])


def _print_beside(title: str, heads: tuple[str, str], rows: Iterable[tuple[str, str, str]]) -> None:
    """Print facts about two versions, or about one where there is no other."""
    found = list(rows)
    shown = 3 if any(theirs for *_, theirs in found) else 2
    table = columns(*(title, *heads)[:shown])
    for row in found:
        table.add_row(*map(escape, row[:shown]))
    if found:
        console().print()
        console().print(table)


def _print_disagreements(said: Told) -> None:
    """Print records that only one of two versions flags, with both scores and both thresholds."""
    if not said.differ:
        return
    console().print(f"\n{said.differ}{', the most severe:' if said.examples else ''}")
    heads = [
        f"{name}, above {value}" if value else name
        for name, value in zip(said.heads, said.thresholds, strict=True)
    ]
    table = columns("flagged by", "batch", "record", *heads, "why (observed, expected, share)", right=heads)
    for row in said.examples:
        why = reasons_text(Reason(**one) for one in row.reasons)
        record, why = escape(shortened(row.name, 40)), escape(fitted(why, 200))
        table.add_row(row.flagged_by, row.batch_id, record, row.score, row.beside, why)
    if said.examples:
        console().print(table)


def print_versions(dataset: str, versions: Sequence[Mapping[str, Any]]) -> None:
    """Print a line per version, newest last: what it is, learned and finds, and whether it stays."""
    if not versions:
        console().print("nothing was trained yet")
        return
    table = columns("version", "trained", "learned batches", "finds", "gates", "kept")
    table.pad_edge = False  # a line each in 80 characters
    for version in versions:
        held, alias = version["holdout"], ", ".join(version["aliases"])
        table.add_row(
            f"{version['version']} [green]{alias}[/green]",
            version["trained_at"][:10],
            escape(version["window"].replace("..", " to ")),
            _finds(held),
            _gates(version),
            "yes" if version["kept"] else "[yellow]no[/yellow]",
        )
    console().print(table)
    console().print(
        "[dim]finds: the share of anomalies injected into records that no version learned, at the version's threshold, when it was judged; "
        "in brackets: what the version that served then found among the same. Lines of two nights are of different records and do not compare; "
        f"vaewatch compare {escape(dataset)} A B measures two on the same. "
        f"kept: no if the next vaewatch prune removes it. All about one: vaewatch versions {escape(dataset)} N[/dim]"
    )


def _finds(held: Mapping[str, float]) -> str:
    """Return what a version found on its holdout, and the champion of that night on the same records."""
    mine, beside = (f"{held[name]:.0%}" if name in held else "" for name in ("recall", "champion_recall"))
    return f"{mine} ({beside})" if beside else mine or "–"


def _gates(version: Mapping[str, Any]) -> str:
    """Return the outcome of a version's gates; a person's rejection overrides it."""
    return (
        "[yellow]rejected[/yellow]"
        if version["rejected_by"]
        else OUTCOME.get(version["decision"], "not judged")
    )


def print_version(found: Mapping[str, Any]) -> None:
    """Print all that is known of one version."""
    out, kept = console(), [why for why in found["kept"] if why not in found["aliases"]]
    alias = f": {', '.join(found['aliases'])}" if found["aliases"] else ""
    out.print(f"[bold]{escape(found['dataset'])} version {found['version']}{alias}[/bold]")
    lines = {
        **found["made_of"],
        "training's page": found["page"],
        "threshold": f"{number(found['metrics']['threshold'])} nats"
        if "threshold" in found["metrics"]
        else "",
        "copied from": found["copied_from"],
        **{
            what.replace("_", " "): f"{in_utc(one['at'])} by {one['by']}: {one['reason']}"
            for what, one in found["became"].items()
        },
        "pruning": f"keeps it{': ' if kept else ''}{'; '.join(kept)}" if found["kept"] else "removes it",
        "gates": OUTCOME.get(found["decision"], "not judged")
        + (
            f" {in_utc(found['evaluated_at'])}: {bare(found['decision_reason'])}" if found["decision"] else ""
        ),
    }
    print_lines((name, text) for name, text in lines.items() if text)
    for note in found["notes"]:
        out.print(f"  [yellow]note[/yellow] {escape(note)}")
    if found["evaluation"]:
        said = told(found["evaluation"], found["decision_reason"])
        out.print(f"\nmeasured on {said.measured_on}\n")
        print_gates(said.rows, said.heads)
        print_ways(said.ways)
        _print_beside("injected anomalies found", said.heads, said.kinds)
        _print_beside("settings that differ", said.heads, said.settings)


def print_history(events: Sequence[Mapping[str, Any]]) -> None:
    """Print what became of each version, newest last."""
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
            escape(shortened(f"{event['reason'].removeprefix('refused: ')}{evidence}", LONGEST)),
        )
    console().print(table)
