"""An evaluation in words, the same on a training's page, in Airflow's question, and in the terminal.

Belongs here: which rows, from what was kept of it (evaluation.json) and what versions are made from. Pure.
Does not: how they look (report/templates/, approval.py, display/models.py), or what decides (judging.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.config.gates import Gates
from pipeline.evaluation.decision import OUTCOME
from pipeline.numerals import number
from pipeline.records.verdicts import name_of

if TYPE_CHECKING:
    from pipeline.registry import ModelVersion

N_EXAMPLES = 5  # records that two versions disagree on; the review page has more
MADE = {
    "window": "learned from batches",
    "window_without": "without the batches",
    "contract_hash": "contract",
    "code_version": "digest of the code",
    "seed": "seed",
}


@dataclass(frozen=True)
class Row:
    """One gate.

    value: of the judged version. beside: what it is compared with. what: what both are. bound: what passes.
    reason: why it failed or was not judged.
    """

    gate: str
    level: str
    verdict: str
    value: str
    beside: str
    what: str
    bound: str
    reason: str


@dataclass(frozen=True)
class Example:
    """A record that one version alone flags, with both scores, each in its version's nats.

    reasons: of that version; empty where an earlier release kept none.
    """

    flagged_by: str
    batch_id: str
    name: str
    score: str
    beside: str
    reasons: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Told:
    """What was measured of two versions, and what follows.

    Attributes:
        heads: of the value columns: the judged version, and the one beside it.
        measured_on: which records.
        kinds: the share found of each kind of injected anomaly, by both.
        differ: how many flags differ, and of how many records.
        thresholds: what each version flags above, in its own nats.
        settings: those that differ, with both values.
        ways: what a person can do about a refusal.
    """

    outcome: str
    sentence: str
    heads: tuple[str, str]
    measured_on: str
    rows: tuple[Row, ...]
    kinds: tuple[tuple[str, str, str], ...] = ()
    differ: str = ""
    thresholds: tuple[str, str] = ("", "")
    examples: tuple[Example, ...] = ()
    settings: tuple[tuple[str, str, str], ...] = ()
    ways: tuple[str, ...] = ()


def told(kept: Mapping[str, Any], sentence: str) -> Told:
    """Put an evaluation as it was kept into words.

    Args:
        kept: decision and evidence as dictionaries.
        sentence: the decision's.
    """
    decision, evidence = kept["decision"], kept["evidence"]
    one, other = evidence["challenger"], evidence["champion"]
    names = heads(one["version"], other["version"] if other else None)
    churn = evidence["churn"] or {"either": 0, "differ": 0, "examples": ()}
    differ = f"{churn['differ']} of {churn['either']} flags among {evidence['n_newest']:,} records of the newest days come from only one of the two versions"
    return Told(
        outcome=OUTCOME[decision["outcome"]],
        sentence=bare(sentence),
        heads=names,
        measured_on=_measured_on(evidence),
        rows=rows(decision["findings"]),
        kinds=tuple(_kinds(one["recall_of"], other["recall_of"] if other else {})),
        differ=differ if other else "",
        thresholds=(_nats(churn.get("threshold")), _nats(churn.get("threshold_champion"))),
        examples=tuple(_examples(churn["examples"][:N_EXAMPLES], names)),
        settings=tuple((name, now, was) for name, (was, now) in evidence.get("changed", {}).items()),
        ways=tuple(decision.get("ways", ())),
    )


def bare(sentence: str) -> str:
    """Return a decision's sentence without its first word, the outcome."""
    return sentence.removeprefix("refused: ").removeprefix("waits: ")


def heads(version: int | None, against: int | None) -> tuple[str, str]:
    """Return the headings above the values of a version and of the one it is compared with."""
    return f"version {version}", "beside it" if against is None else f"version {against}"


def rows(findings: Sequence[Mapping[str, Any]]) -> tuple[Row, ...]:
    """Return every gate that is not off, from decision.Finding as dictionaries."""
    return tuple(
        Row(
            gate=found["gate"],
            level=found["level"],
            verdict=found["verdict"],
            value=found["value"],
            beside=found["champion"],
            what=measured_by(found["gate"]),
            bound=found["bound"],
            reason=found["reason"],
        )
        for found in findings
    )


def measured_by(gate: str) -> str:
    """Return what a gate's value is; empty for a gate that no longer exists."""
    known = Gates.model_fields.get(gate)
    return (known.description or "") if known else ""


def made_of(one: ModelVersion, other: ModelVersion | None) -> Iterator[tuple[str, str, str]]:
    """Yield what two versions are made from, and what verdicts say of them, by name.

    The other's is "the same" where equal, and empty where there is no other.
    """
    mine, theirs = _facts(one), _facts(other) if other else {}
    for name in dict.fromkeys([*mine, *theirs]):
        beside = theirs.get(name, "–") if other else ""
        yield name, mine.get(name, "–"), "the same" if mine.get(name) == beside else beside


def verdicts_say(review: str) -> str:
    """Return what verdicts say of a version: "precision 0.75 (0.60 to 0.86; 40 judged)".

    Where no point estimate was logged (review/loop.py), it is the interval.

    Args:
        review: the version's tag of this name.
    """
    found = json.loads(review)
    said = (_estimate(found, "precision", "judged"), _estimate(found, "recall", "sampled"))
    return "; ".join(filter(None, said))


def _estimate(found: Mapping[str, float], name: str, counted: str) -> str:
    if f"review_{name}_low" not in found:
        return ""
    interval = f"{found[f'review_{name}_low']:.2f} to {found[f'review_{name}_high']:.2f}"
    n = f"{found[f'review_{counted}']:.0f} {counted}" if f"review_{counted}" in found else ""
    value = found.get(f"review_{name}")
    if value is None:
        return f"{name} {interval} ({': '.join(filter(None, [n, 'too few to say more']))})"
    return f"{name} {value:.2f} ({'; '.join(filter(None, [interval, n]))})"


def _facts(version: ModelVersion) -> dict[str, str]:
    learned = sum(int(version.metrics.get(name, 0)) for name in ("n_training", "n_calibrating"))
    found = {"trained": f"{version.created_at:%Y-%m-%d %H:%M} UTC"}
    found |= {name: version.tags[tag] for tag, name in MADE.items() if tag in version.tags}
    if MADE["window"] in found:
        found[MADE["window"]] = found[MADE["window"]].replace("..", " to ")
    found |= {"records learned": f"{learned:,}"} if learned else {}
    found |= {"MLflow run": version.run_id} if version.run_id else {}
    if review := version.tags.get("review"):
        found["verdicts say"] = verdicts_say(review)
    return found


def _measured_on(evidence: Mapping[str, Any]) -> str:
    seen = "neither has seen" if evidence["champion"] else "it has not seen"
    held = f"{evidence['n_holdout']:,} held-out records that {seen}, {evidence['n_recent']:,} of them of the newest days"
    return (
        f"{held} (seven, or those of its shadow); flags are compared on {evidence['n_newest']:,} records drawn from these days, "
        f"held out or not; all from batches {evidence['first_batch']} to {evidence['last_batch']}"
    )


def _kinds(mine: Mapping[str, float], theirs: Mapping[str, float]) -> Iterator[tuple[str, str, str]]:
    for kind, share in mine.items():
        yield kind, f"{share:.1%}", f"{theirs[kind]:.1%}" if kind in theirs else ""


def _examples(found: Sequence[Mapping[str, Any]], names: tuple[str, str]) -> Iterator[Example]:
    for row in found:
        by = names[0] if row["by"] == "challenger" else names[1]
        score, beside = (_nats(row.get(name)) for name in ("score", "score_champion"))
        batch_id, key = str(row["batch_id"]), str(row["record_key"])
        name = name_of(key, batch_id, row["row_number"]) if "row_number" in row else key
        yield Example(by, batch_id, name, score, beside, row.get("reasons", ()))


def _nats(value: float | None) -> str:
    return "" if value is None else number(value)
