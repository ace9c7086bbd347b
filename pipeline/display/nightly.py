"""Prints what there is to say of nightly work: receipts, datasets and their batches, what was set aside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.padding import Padding

from pipeline.display import BESIDE, LONGEST, columns, console, shortened, shown
from pipeline.display.models import print_gates, print_reasons
from pipeline.evaluation.told import heads, rows
from pipeline.numerals import number
from pipeline.records.looking_back import words
from pipeline.steps.receipts import Evaluated, Receipt, Reproduced, odd_as_a_whole

if TYPE_CHECKING:
    from pipeline.report.glance import Glance

NO_DATASETS = (
    "no dataset file in the folder VAEWATCH_DATASETS (default dags/datasets): "
    "write one with `vaewatch init FOLDER`"
)
SHOWN = 30
TO_LOOK_AT = ("refused", "in doubt", "with records set aside")
MOST_REFUSED = 5  # named in one line
MOST_SHOWN = 1_000  # characters of a record that was set aside
OUTCOMES = ("accepted", "scored", "refused", "failed", "waiting", "unchanged")
BATCH = ("batch", "status", "read", "accepted", "set aside", "flagged", "model", "threshold")
STYLE = {
    "refused": "red",
    "failed": "red",
    "scored": "green",
    "accepted": "cyan",
    "waiting": "yellow",
    "nothing scored": "yellow",
}


def print_receipt(receipt: Receipt) -> None:
    """Print one step's outcome in a line, and what went wrong, if anything, a line each."""
    outcomes: Counter[str] = Counter(batch.outcome for batch in receipt.batches)
    counts = [f"{outcomes[one]} {one}" for one in OUTCOMES if outcomes[one]]
    if set(outcomes) == {receipt.outcome}:  # which is said before them
        n = outcomes.total()
        counts = [f"{n} batch{'es' * (n != 1)}"]
    n_flagged = sum(batch.n_flagged or 0 for batch in receipt.with_outcome("scored"))
    counts += [f"{n_flagged:,} records flagged"] if receipt.with_outcome("scored") else []
    version = f"model version {receipt.model_version}" if receipt.model_version is not None else ""
    alias = f"is {receipt.alias}" if receipt.alias else ""
    facts = "; ".join(part for part in [", ".join(counts), f"{version} {alias}".strip()] if part)
    decision = receipt.decision if isinstance(receipt, Evaluated) else None
    reason = "" if decision else receipt.reason.removeprefix(f"{receipt.outcome}: ")
    console().print(
        f"[bold]{receipt.step}[/bold]{escape(f' {receipt.dataset}'.rstrip())}: {receipt.outcome}{': ' if facts else ''}{facts}"
        f"{': ' + escape(reason) if reason else ''}"
    )
    if isinstance(receipt, Reproduced):
        for line in receipt.likely:
            console().print(f"  likely because: {escape(line)}")
        for line in receipt.since:
            console().print(f"  changed since: {escape(line)}")
    if decision:
        print_gates(rows(decision.as_dict()["findings"]), heads(receipt.model_version, decision.against))
        print_reasons(decision)
    said = decision.incomparable if decision else ""  # the gates' lines give it
    for line in (note for note in receipt.notes if not said or not note.endswith(said)):
        console().print(f"  [yellow]note[/yellow] {escape(line)}")
    if receipt.page:
        console().print(f"  the training's page: {escape(receipt.page)}", soft_wrap=True)
    if receipt.next:
        console().print(f"  next: {escape(receipt.next)}", soft_wrap=True)  # commands can be copied
    for batch in receipt.with_outcome("failed"):
        console().print(f"  [red]{batch.batch_id} failed[/red]: {escape(batch.reason)}")
    if refused := [batch.batch_id for batch in receipt.with_outcome("refused")]:
        more = f" and {len(refused) - MOST_REFUSED} more" * (len(refused) > MOST_REFUSED)
        where = f"why is said above, and by vaewatch quarantine list {receipt.dataset}"
        console().print(f"  [red]refused[/red]: {', '.join(refused[:MOST_REFUSED])}{more} ({where})")


def print_status(
    found: list[dict[str, Any]], said: Glance | None, doubted: Mapping[str, Collection[str]], *, whole: bool
) -> None:
    """Print how datasets stand.

    Args:
        said: what the batches' pages say, where one dataset was asked for and its batches are printed, too;
            None where all were.
        doubted: by dataset, where all were asked for: which batches' flags are in doubt.
        whole: print every batch, not only the newest.
    """
    if not found:
        console().print(NO_DATASETS)
    for dataset in found:
        champion = f"version {dataset['champion']}" if dataset["champion"] else "none yet"
        counted = Counter(_status(batch) for batch in dataset["batches"])
        counts = ", ".join(f"{n} {status}" for status, n in sorted(counted.items())) or "no batches yet"
        n_aside = sum(batch["n_set_aside"] for batch in dataset["batches"])
        n_refused = dataset["n_read"] - dataset["n_accepted"] - n_aside
        console().print(
            f"[bold]{escape(dataset['dataset'])}[/bold]  champion: {champion}; batches: {counts}; "
            f"records: {dataset['n_read']:,} read, {dataset['n_accepted']:,} accepted, {n_aside:,} set aside, "
            f"{n_refused:,} refused, {dataset['n_flagged']:,} flagged"
            f"{'' if said else _of_the_newest(dataset, doubted.get(dataset['dataset'], ()))}"
        )
        if said and dataset["batches"]:
            most = len(dataset["batches"]) if whole else SHOWN
            command = f"vaewatch status {dataset['dataset']} --all"
            print_batches(dataset["batches"], said, whole=command, most=most)
        if said:
            console().print(f"tables: {dataset['tables']}")


def _of_the_newest(dataset: Mapping[str, Any], doubted: Collection[str]) -> str:
    """Say how many of a dataset's newest batches are refused or in doubt; empty where none is."""
    newest = dataset["batches"][-SHOWN:]
    said = _to_look_at(newest, doubted, TO_LOOK_AT[:2])
    return (
        f"; of the newest {len(newest)} batches {said}: vaewatch status {dataset['dataset']}" if said else ""
    )


def _to_look_at(batches: Iterable[Mapping[str, Any]], doubted: Collection[str], kinds: Sequence[str]) -> str:
    """Say how many batches somebody should look at, and why; empty where there is none."""
    counted = Counter(
        "refused" if one["status"] == "refused"
        else "in doubt" if one["batch_id"] in doubted
        else "with records set aside" if one["n_set_aside"]
        else ""
        for one in batches
    )  # fmt: skip
    return ", ".join(f"{counted[kind]} {kind}" for kind in kinds if counted[kind])


def print_batches(batches: Sequence[dict[str, Any]], said: Glance, *, whole: str, most: int = SHOWN) -> None:
    """Print a line per batch: what was read, accepted, set aside and flagged, by which model and threshold.

    Notes stand beside the counts where the terminal is wide enough, else below the table.

    Args:
        said: the headlines of pages whose flags are in doubt, and lines about all batches, which are printed
            last.
        whole: the command that prints all batches.
        most: how many of the newest to print; of the others, how many somebody should look at is said.
    """
    out = console()
    if len(batches) > most:
        look = _to_look_at(batches[:-most], said.headlines, TO_LOOK_AT)
        left_out = f"; of the {len(batches) - most} others {look}" if look else ""
        out.print(f"the newest {most} of {len(batches)} batches{left_out} (all of them: {escape(whole)})")
    beside = out.width >= BESIDE
    table = columns(*BATCH, *(["note"] if beside else []), right=BATCH[2:])
    for column in table.columns[: len(BATCH)]:
        column.no_wrap = True  # on a narrow terminal the note moves, so that no batch's name wraps
    told = {batch["batch_id"]: _note(batch, said.headlines) for batch in batches[-most:]}
    notes = {batch_id: escape(shortened(note, LONGEST)) for batch_id, note in told.items()}
    for batch in batches[-most:]:
        table.add_row(*_counts(batch), *([notes[batch["batch_id"]]] if beside else []))
    out.print(table)
    for batch_id, note in notes.items():
        if note and not beside:
            out.print(f" {escape(batch_id)}: {note}")
    for line in said.lines:
        out.print(escape(line), soft_wrap=True)  # a wrapped command cannot be copied


def _counts(batch: dict[str, Any]) -> list[str]:
    threshold = batch["threshold"]
    return [
        escape(batch["batch_id"]),
        f"[{STYLE.get(_status(batch), '')}]{_status(batch)}[/]",
        f"{batch['n_read']:,}",
        f"{batch['n_accepted']:,}",
        _set_aside(batch),
        "" if batch["n_flagged"] is None else f"{batch['n_flagged']:,}",
        "" if batch["model_version"] is None else str(batch["model_version"]),
        "" if threshold is None else number(threshold),
    ]


def _set_aside(batch: Mapping[str, Any]) -> str:
    """Return how many records are set aside; a dash for a refused batch, of which none is kept."""
    return "–" if batch["status"] == "refused" else f"{batch['n_set_aside']:,}"


def _status(batch: Mapping[str, Any]) -> str:
    """Return a batch's status; of one without an accepted record, nothing was scored."""
    nothing = batch["status"] == "scored" and batch["n_read"] == batch["n_set_aside"]
    return "nothing scored" if nothing else str(batch["status"])


def _note(batch: dict[str, Any], headlines: Mapping[str, str]) -> str:
    aside = ", ".join(f"{reason} {n:,}" for reason, n in batch["set_aside"].items())
    odd = odd_as_a_whole(batch["above_usual"]) if batch["is_odd"] else ""
    behind = batch.get("outdated_by")
    stale = "" if behind is None else f"outdated: {words(behind)}"
    headline = headlines.get(batch["batch_id"], "")
    stands = (batch.get("stands") or {}).get("words", "")
    if batch["reason"]:
        return "; ".join(filter(None, [stands, batch["reason"]]))
    return "; ".join(filter(None, [headline, odd, stale, stands, *batch["notes"], aside]))


def print_quarantined(found: list[dict[str, Any]]) -> None:
    """Print the batches that were refused or have something set aside."""
    if not found:
        console().print("nothing is refused or set aside")
        return
    table = columns("batch", "status", "read", "set aside", "why", right=("read", "set aside"))
    for column in table.columns[:4]:
        column.no_wrap = True
    for row in found:
        why = row["reason"] or ", ".join(f"{reason} {n:,}" for reason, n in row["set_aside"].items())
        table.add_row(row["batch_id"], _status(row), f"{row['n_read']:,}", _set_aside(row), escape(why))
    console().print(table)


def print_set_aside(found: dict[str, Any]) -> None:
    """Print the records of one batch that were set aside.

    First how many for each reason, then each record with its reasons and its values, the blamed ones first.
    Of a refused batch nothing was published: its records are where they landed.
    """
    out = console()
    is_refused = found["status"] == "refused"
    said = f"{found['n_set_aside']:,} of {found['n_read']:,} records set aside"
    if is_refused:
        said = f"none of {found['n_read']:,} records is kept" if found["n_read"] else "no record was read"
    out.print(f"[bold]{found['batch_id']}[/bold] {_status(found)}: {said}")
    if found["reason"]:
        out.print(f"  {escape(found['reason'])}")
    for reason, n in sorted(found["set_aside"].items(), key=lambda item: -item[1]):
        out.print(f"  {n:>7,}  {escape(reason)}")
    is_cut = False
    for row in found["records"]:
        blamed = [name for reason in row["reasons"] for name in reason.partition(":")[2].split("+")]
        names = dict.fromkeys([*(n for n in blamed if n in row["record"]), *row["record"]])
        values = ", ".join(f"{name} {shown(row['record'][name])}" for name in names)
        is_cut |= len(values) > MOST_SHOWN
        which = f"row {row['row_number']}, {escape(shortened(row['record_key'], 28))}"
        out.print(f"[bold]{escape(', '.join(row['reasons']))}[/bold]  {which}")
        out.print(Padding(escape(shortened(values, MOST_SHOWN)), (0, 0, 0, 4)))
    if len(found["records"]) < found["n_set_aside"] and found["records"]:
        out.print(f"the first {len(found['records'])} of {found['n_set_aside']:,}; more: --limit")
    if is_cut:
        out.print("what ends in … is cut; whole: --json")
    if is_refused:
        where = f"where they landed: {', '.join(found['files'])}"
        if stands := found.get("stands"):
            out.print(f"{stands}; the records that were refused are {where}")
        else:
            out.print(f"its records are published nowhere; they are {where}")
    out.print(f"its contract's page: {found['report']}")
