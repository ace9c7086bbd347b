"""What is shown to the person who decides whether a challenger becomes champion.

Belongs here: the evidence, in Markdown. Does not: where it is asked (dags/), or which words and numbers
(evaluation/told.py: the same as on a training's page and in `vaewatch compare`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pipeline.evaluation.decision import OUTCOME
from pipeline.evaluation.told import Told, bare, made_of, told

if TYPE_CHECKING:
    from pipeline.registry import ModelVersion


def evidence(
    challenger: ModelVersion,
    champion: ModelVersion | None,
    kept: Mapping[str, Any] | None,
    objection: str = "",
) -> str:
    """Describe the decision and its reasons, every gate, where the two disagree, and what they are made from.

    Args:
        kept: the challenger's evaluation, as it was logged; None where it was not judged here, or that is
            gone.
        objection: what speaks against promoting it; an approval overrides that, with a note.
    """
    beside = f"version {champion.version}, which serves" if champion else "none: no version serves yet"
    said = told(kept, challenger.tags.get("decision_reason", "")) if kept else None
    parts = [
        f"**Version {challenger.version}** of {challenger.dataset}, of {challenger.created_at:%Y-%m-%d %H:%M} UTC, "
        f"beside {beside}.",
        f"**Against it**: {_plain(objection)}. Approving overrides that, and needs a note that says why."
        if objection
        else "",
        ""
        if "challenger" in challenger.aliases
        else "It is **not the challenger**: it was refused or rejected, or a newer version that passed has taken that place.",
        *_elsewhere(challenger.tags),
        *(f"Its training said: {_plain(doubt)}." for doubt in challenger.doubts),
        _decision(challenger),
        *(_measured(said) if said else ()),
        "\n".join(_table(("Made of", *_names(challenger, champion)), _made(challenger, champion, said))),
        f"To compare the two on the records of now: `vaewatch compare {challenger.dataset} {challenger.version} {champion.version}`"
        if champion
        else "",
    ]
    return "\n\n".join(part for part in parts if part)


def _elsewhere(tags: Mapping[str, str]) -> Iterator[str]:
    """Yield what was said of the version where it was copied from."""
    if "copied_from" in tags:
        yield f"It was copied from {_plain(tags['copied_from'])} by {_plain(tags.get('copied_by', 'somebody'))}."
    if "source.decision" in tags:
        said = _outcome(tags["source.decision"], tags.get("source.decision_reason", ""))
        yield f"The gates there said {said}."
    if "source.promoted_by" in tags:
        why = _plain(tags.get("source.promoted_reason", "no reason given"))
        yield f"It became champion there by {_plain(tags['source.promoted_by'])}: {why}."


def _decision(challenger: ModelVersion) -> str:
    """Say what the gates decided, from the tags."""
    tags = challenger.tags
    if "decision" not in tags:
        return f"It was not judged here: `vaewatch evaluate {challenger.dataset} --version {challenger.version}` does that."
    return f"The gates say {_outcome(tags['decision'], tags.get('decision_reason', ''))}."


def _outcome(decision: str, reason: str) -> str:
    return f"**{_plain(OUTCOME.get(decision, decision))}**: {_plain(bare(reason)) or 'no reason given'}"


def _measured(said: Told) -> Iterator[str]:
    """Yield every gate and its reason, anomalies by kind, and records that the two disagree on."""
    yield f"Measured on {_plain(said.measured_on)}. Chance is allowed for on top of every bound."
    judged = [row for row in said.rows if row.verdict != "not judged"]
    gates = ((r.gate, r.level, r.verdict, r.value, r.beside, f"{r.what}; {r.bound}") for r in judged)
    head = ("Gate", "Level", "Outcome", *map(str.capitalize, said.heads), "What is measured, what passes")
    yield "\n".join(_table(head, gates))
    yield "\n".join(
        f"- {_plain(row.gate)}, {row.level}, {row.verdict}: {_plain(row.reason)}"
        for row in said.rows
        if row.reason
    )
    if said.ways:
        yield "What can be done:"
        yield "\n".join(f"- {_plain(way)}" for way in said.ways)
    if said.kinds:
        yield "\n".join(_table(("Injected anomalies found", *map(str.capitalize, said.heads)), said.kinds))
    if said.differ:
        yield f"{_plain(said.differ)}{', the most severe:' if said.examples else '.'}"
    if said.examples:
        above = (
            f"{name.capitalize()}{f', above {value}' if value else ''}"
            for name, value in zip(said.heads, said.thresholds, strict=True)
        )
        examples = (
            (e.flagged_by, e.batch_id, e.name, ", ".join(r["column"] for r in e.reasons), e.score, e.beside)
            for e in said.examples
        )
        yield "\n".join(_table(("Flagged by", "Batch", "Record", "Odd in", *above), examples))


def _names(challenger: ModelVersion, champion: ModelVersion | None) -> Iterator[str]:
    yield f"Version {challenger.version}"
    if champion:
        yield f"Version {champion.version}, which serves"


def _made(
    challenger: ModelVersion, champion: ModelVersion | None, said: Told | None
) -> Iterator[tuple[str, ...]]:
    for row in made_of(challenger, champion):
        yield row if champion else row[:2]
    if champion and said and said.heads[1] == f"version {champion.version}":
        yield from said.settings


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    names = tuple(head)
    yield _row(names)
    yield "|---" * len(names) + "|"
    for row in rows:
        yield _row(row)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(_plain(cell) or '–' for cell in cells)} |"


def _plain(text: str) -> str:
    """Escape Markdown: a reason may quote whatever was in the data."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>#|!" else " " if c in "\r\n" else c for c in text)
