"""What is likely behind a challenger's failure, and what to do.

Belongs here: deriving causes from what was measured. Does not: what fails (judging.py).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from pipeline.config.gates import Gates
from pipeline.evaluation.evidence import Evidence, Ratio

DISTINCT = 0.5  # share of different scores among different records
FEW_LEARNED = 0.2  # of what the champion learned from
SILENT = 0.05  # nats a record, below which latents say nothing
QUIETER = 0.6  # share of what the champion's say
MOST_NAMED = 3  # settings or columns


def likely_cause(evidence: Evidence, gates: Gates) -> str:
    """Return the likely cause. Settings that differ from the champion's come first: somebody changed them.

    Where neither of two versions is to replace the other, only what sets them apart is returned: that one is
    older, or was promoted for its faults, cannot be derived from what was measured.
    """
    if not evidence.serves:
        return _apart(evidence)
    changed = [f"{name} {now} (was {was})" for name, (was, now) in evidence.changed.items()]
    if not changed or _of_learned(evidence, gates):  # no setting changes what records are
        return _measured(evidence, gates)
    return f"its settings differ from the champion's: {named(changed)}; if not that, {_measured(evidence, gates)}"


def ways_out(evidence: Evidence, gates: Gates, refused: Collection[str]) -> tuple[str, ...]:
    """Return what to do where the champion flags far too much but a version that knows these days is refused.

    An event and a change of regime measure alike, and only people know which it is.

    Args:
        refused: the gates that refuse it.
    """
    theirs, name = _beyond(evidence, gates), evidence.dataset
    if not (theirs and evidence.serves and refused):
        return ()
    found = [
        f"if these days are an event, or wrong: label them anomaly or data_error, a group at a time (vaewatch review groups {name}); "
        "the next training leaves them out",
        "if it will stay like this: label them expected_change, set train.window_days in the dataset's file to the days since the "
        f"change, so that little from before is learned, and train again (vaewatch train {name})",
    ]
    if "collapse" not in refused:
        version = evidence.challenger.version
        found.append(
            f"or promote it all the same ({_beside(evidence)}): "
            f"vaewatch promote {name} --version {version} --by WHO --reason WHY"
        )
    found.append(
        "until then, set flag.cap in the dataset's file to as many flags a batch as people can look at: the most severe stay"
    )
    return tuple(found)


def _beyond(evidence: Evidence, gates: Gates) -> Ratio | None:
    """Return the champion's flags over those promised, where they exceed the bound."""
    theirs = evidence.champion.flag_rate if evidence.champion else None
    return theirs if theirs and theirs.low > gates.flag_rate.highest else None


def _beside(evidence: Evidence) -> str:
    """Say what a promotion would change, as measured."""
    one, other = evidence.challenger, evidence.champion
    said = []
    if other and one.flag_rate and other.flag_rate:
        said.append(
            f"of these records it flags {one.flag_rate.value:.3g} times as many as promised, the champion {other.flag_rate.value:.3g} times"
        )
    if other and one.recall is not None and other.recall is not None:
        said.append(f"it finds {one.recall:.0%} of the injected anomalies, the champion {other.recall:.0%}")
    return "; ".join(said)


def _apart(evidence: Evidence) -> str:
    one, other = evidence.challenger, evidence.champion
    found = [f"{name} {now} ({evidence.rival}: {was})" for name, (was, now) in evidence.changed.items()]
    found = found[:MOST_NAMED] + [f"{len(found) - MOST_NAMED} more"] * (len(found) > MOST_NAMED)
    if other and one.n_learned < FEW_LEARNED * other.n_learned:
        found.append(f"it learned from {one.n_learned:,} records, {evidence.rival} from {other.n_learned:,}")
    return "; ".join(found)


def _measured(evidence: Evidence, gates: Gates) -> str:
    one, other = evidence.challenger, evidence.champion
    if other and one.n_learned < FEW_LEARNED * other.n_learned:
        return f"it learned from {one.n_learned:,} records, the champion from {other.n_learned:,}: look at what the window holds (vaewatch status)"
    if said := _of_values(evidence):
        return said
    if said := _of_learned(evidence, gates):
        return said
    if one.distinct < DISTINCT:
        return "training broke down: look at its curves in MLflow and at the columns' values"
    if one.kl_divergence < SILENT and not (other and other.kl_divergence < SILENT):
        return f"its latents carry only {one.kl_divergence:.2g} nats of a record: they collapsed onto the prior; lower train.recipe.kl_weight"
    if theirs := _beyond(evidence, gates):
        return (
            f"the champion flags {theirs.value:.3g} times as many of these records as promised: it learned many odd ones as normal, "
            "or what is normal has changed"
        )
    return _of_recall(evidence) or (
        "trained too briefly, or on records unlike today's, odd ones among them: look at its curves in MLflow and at the window's batches"
    )


def _of_values(evidence: Evidence) -> str:
    """What can be seen in the records themselves, whatever was made of them."""
    if evidence.constant:
        varied = ", and varied when the champion learned" if evidence.champion else ""
        return (
            f"columns do not vary in the records that it learned{varied}: {named(evidence.constant)}; look at what the source "
            f"delivers (vaewatch status {evidence.dataset}), and where it is right, give them role: ignored"
        )
    if evidence.far:
        return (
            f"most values of the newest days lie far outside of all that the champion learned: {named(evidence.far)}; look whether "
            f"the source changed its unit or its scale (vaewatch report {evidence.dataset})"
        )
    return ""


def _of_learned(evidence: Evidence, gates: Gates) -> str:
    """What is said where a training read other records than are held out of the same batches."""
    found = evidence.learned
    if found is None or found.least <= gates.learned.most:
        return ""
    return (
        f"it learned many odd ones, at least {found.least:.0%} of its records: their values go together as in no record held out of the "
        "same batches, as where columns were joined or sorted apart on the way, or batches were corrected since; train again "
        f"(vaewatch train {evidence.dataset})"
    )


def named(found: Sequence[str]) -> str:
    """Return the first few of them, and how many more there are."""
    more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    return f"{', '.join(found[:MOST_NAMED])}{more}"


def _of_recall(evidence: Evidence) -> str:
    """Name a cause by the kinds of anomalies that are no longer found, and by what the latents still say."""
    one, other = evidence.challenger, evidence.champion
    lost = {kind: difference.value for kind, difference in evidence.recall_differences.items()}
    if one.flag_rate and one.flag_rate.high < 1 and lost.get("shifted", 0) < -0.1:
        return "its threshold lies far above ordinary records, as happens where it learned many odd ones: look at the window's batches"
    if lost and min(lost, key=lambda kind: lost[kind]) in {"swapped", "several"}:
        return "it did not learn which values go together in a record: columns were joined or sorted apart, or there were too few steps (train.recipe) or records"
    if other and one.kl_divergence < QUIETER * other.kl_divergence:
        return (
            f"its latents carry {one.kl_divergence:.2g} nats of a record, the champion's {other.kl_divergence:.2g}: it learned less of which "
            "values go together in a record, as happens where columns were joined or sorted apart, or steps were few (train.recipe)"
        )
    return ""
