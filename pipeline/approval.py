"""What a person is shown who decides whether a challenger becomes champion.

Belongs here: the evidence, in Markdown. Does not: where it is asked (dags/), or what was measured (tags and
metrics of the versions, whoever wrote them).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.registry import ModelVersion

DIGITS = 5
ABOUT = {
    "window": "learned from the batches",
    "contract_hash": "contract",
    "code_version": "code",
    "seed": "seed",
}


def evidence(challenger: ModelVersion, champion: ModelVersion | None, objection: str = "") -> str:
    """The decision with its reasons where one was taken, what was measured of both versions, and what they
    are made of.

    Args:
        objection: what speaks against promoting it; an approval overrides that.
    """
    beside = f"version {champion.version}, which serves" if champion else "none: no version serves yet"
    parts = [
        f"**Version {challenger.version}** of {challenger.dataset}, of {challenger.created_at:%Y-%m-%d %H:%M} UTC, "
        f"beside {beside}.",
        "\n".join(_decision(challenger)),
        "\n".join(_measured(challenger, champion)),
        "\n".join(_made(challenger, champion)),
        f"Every gate, and records that the two disagree on: {_compare(challenger, champion)}"
        if champion
        else "",
    ]
    if "challenger" not in challenger.aliases:
        parts.insert(
            1,
            "It is **not the challenger**: it was refused or rejected, or a newer version that passed has taken that place.",
        )
    if objection:
        parts.insert(1, f"**Against it**: {_plain(objection)}. Approving overrides that.")
    return "\n\n".join(part for part in parts if part)


def _compare(challenger: ModelVersion, champion: ModelVersion) -> str:
    return f"`vaewatch compare {challenger.dataset} {challenger.version} {champion.version}`"


def _decision(challenger: ModelVersion) -> Iterator[str]:
    """What the gates said, as tags keep it."""
    tags = challenger.tags
    if "copied_from" in tags:
        yield f"It was copied from {_plain(tags['copied_from'])} by {_plain(tags.get('copied_by', 'somebody'))}."
        if "source.decision" in tags:
            said = f"**{_plain(tags['source.decision'])}**: {_plain(tags.get('source.decision_reason', ''))}"
            yield f"The gates there said {said}."
        if "source.promoted_by" in tags:
            why = _plain(tags.get("source.promoted_reason", "no reason given"))
            yield f"It became champion there by {_plain(tags['source.promoted_by'])}: {why}."
        yield ""
    if "decision" not in tags:
        yield "It was not evaluated here: the numbers below are all there is."
        return
    yield f"The gates say **{_plain(tags['decision'])}**: {_plain(tags.get('decision_reason', 'no reason given'))}."
    yield ""
    for note in _notes(tags.get("decision_notes", "")):
        yield f"- {_plain(note)}"


def _notes(text: str) -> list[str]:
    try:
        found = json.loads(text)
    except ValueError:
        return []
    return [str(note) for note in found] if isinstance(found, list) else []


def _measured(challenger: ModelVersion, champion: ModelVersion | None) -> Iterator[str]:
    names = sorted({*challenger.metrics, *(champion.metrics if champion else {})})
    if names:
        yield from _head(challenger, champion)
    for name in names:
        yield _row(
            name, [_number(version.metrics.get(name)) for version in (challenger, champion) if version]
        )


def _made(challenger: ModelVersion, champion: ModelVersion | None) -> Iterator[str]:
    yield from _head(challenger, champion)
    for tag, name in ABOUT.items():
        yield _row(
            name,
            [version.tags.get(tag, "–") for version in (challenger, champion) if version],
        )
    yield _row("MLflow run", [version.run_id or "–" for version in (challenger, champion) if version])
    for version in (challenger, champion):
        if version and (review := version.tags.get("review")):
            said = ", ".join(
                f"{name.replace('_', ' ')} {_number(value)}" for name, value in json.loads(review).items()
            )
            yield _row(
                "verdicts say", [said if one is version else "" for one in (challenger, champion) if one]
            )


def _head(challenger: ModelVersion, champion: ModelVersion | None) -> Iterator[str]:
    names = [
        f"version {challenger.version}",
        *([f"champion, version {champion.version}"] if champion else []),
    ]
    yield _row("", names)
    yield "|---" * (1 + len(names)) + "|"


def _row(name: str, values: Sequence[str]) -> str:
    return f"| {_plain(name.replace('_', ' '))} | {' | '.join(map(_plain, values))} |"


def _number(value: Any) -> str:
    return "–" if value is None else f"{value:.{DIGITS}g}"


def _plain(text: str) -> str:
    """Text that Markdown leaves as it is: a reason may quote whatever was in the data."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>#|!" else " " if c in "\r\n" else c for c in text)
