"""Which version serves, by somebody's decision or automatically.

Belongs here: the steps promote, reject and rollback, and the evidence shown to whoever decides. Does not:
judging (evaluating.py), or aliases (registry/).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.config.dataset import Dataset
from pipeline.errors import ModelUnusable, NotReady
from pipeline.installation import Installation
from pipeline.steps.keys import Say
from pipeline.steps.receipts import Asked, Promoted, Receipt

if TYPE_CHECKING:
    from pipeline.registry import ModelVersion, Promotion

NO_REASON = "no reason was given"


def promote(
    here: Installation,
    dataset_name: str,
    version: int | None = None,
    *,
    by: str,
    reason: str,
    override: bool = False,
    as_challenger: bool = False,
    say: Say = lambda _: None,
) -> Promoted:
    """Make a version champion (default: the challenger); the champion until now becomes `previous`.

    Args:
        override: promote what cannot score what lands now, or was refused, never judged, or judged against
            another champion than serves now; this is kept with the version.
        as_challenger: refuse if the version is no longer the challenger.

    Raises:
        NotReady: there is no such version; or it cannot score what lands now, was refused, never judged, or
            judged against another champion, and that is not overridden with a reason; or another promotion,
            or another challenger, came first.
    """
    from pipeline.notify import alerts

    dataset, reason = here.dataset(dataset_name), reason.strip()
    seen = here.registry.champion(dataset.name)
    chosen = _chosen(here, dataset, version)
    if as_challenger and not {"challenger", "champion"} & set(chosen.aliases):
        raise NotReady(_displaced(dataset, chosen, here.registry.challenger(dataset.name)))
    against = _objection(here, dataset, chosen, seen)
    _check_override(dataset, chosen, against, override=override, reason=reason)
    misses = _misses(here, dataset, chosen, seen)
    overriding = f"overrides: {against}" if against else ""
    why = "; ".join(filter(None, [reason or NO_REASON, overriding]))
    done = _moved(here, dataset, chosen, seen, by=by, reason=why)
    _retell(here, dataset, done.champion)
    if done.changed and misses:
        alerts.tell_deaf(here, dataset, done.champion, misses, say)
    return Promoted(
        "promote",
        dataset.name,
        "promoted" if done.changed else "unchanged",
        model_version=done.champion,
        alias="champion",
        reason=(overriding or chosen.tags["decision_reason"])
        if done.changed
        else _already(here, dataset, done.champion),
        previous=done.previous,
        next=_flags_kept(here, dataset, done.previous, done.champion) if done.changed else "",
    )


def _already(here: Installation, dataset: Dataset, version: int) -> str:
    """Say whose promotion holds where a promotion was already done, by somebody else or by an earlier try."""
    tags = here.registry.version(dataset.name, version).tags
    by, at = tags.get("promoted_by", "somebody"), tags.get("promoted_at", "an earlier time")
    return f"it serves already (promoted {at} by {by}): nothing was changed, and the reason was not recorded"


def _chosen(here: Installation, dataset: Dataset, version: int | None) -> ModelVersion:
    """Return the version that is meant, by default the challenger.

    Raises:
        NotReady: there is no such version, or no challenger.
    """
    if version is not None:
        return here.registry.version(dataset.name, version)
    if challenger := here.registry.challenger(dataset.name):
        return challenger
    raise NotReady(_nobody(dataset, here.registry.versions(dataset.name)))


def _check_override(
    dataset: Dataset, chosen: ModelVersion, against: str, *, override: bool, reason: str
) -> None:
    """Refuse a promotion with an objection, unless it is overridden with a reason."""
    anyway = f"vaewatch promote {dataset.name} --version {chosen.version} --reason WHY"
    if against and not override:
        raise NotReady(f"{dataset.name}: {against}; to promote it all the same: {anyway}")
    if against and not reason:
        raise NotReady(
            f"{dataset.name}: {against}; nothing was changed; to promote it all the same, give a reason: {anyway}, or "
            "a note when the approval is asked again"
        )


def _moved(
    here: Installation,
    dataset: Dataset,
    chosen: ModelVersion,
    seen: ModelVersion | None,
    *,
    by: str,
    reason: str,
) -> Promotion:
    """Promote, unless another version than was `seen` has become champion since."""
    with here.ledger.changing_champion(dataset.name) as note:
        now = here.registry.champion(dataset.name)
        if now and now.version not in {seen.version if seen else None, chosen.version}:
            raise NotReady(_overtaken(dataset, chosen, now))
        done = here.registry.promote(dataset.name, chosen.version, by=by, reason=reason)
        note(done.champion)
    return done


def _misses(here: Installation, dataset: Dataset, chosen: ModelVersion, serves: ModelVersion | None) -> str:
    """Return why a version's quiet nights will say little.

    Empty where nothing is known against it, or the one that serves misses as much.
    """
    from pipeline.report.gates import judgement

    now, then = (judgement(here, dataset, version) if version else None for version in (chosen, serves))
    return now.misses if now and not (then and then.misses) else ""


def _objection(
    here: Installation, dataset: Dataset, chosen: ModelVersion, champion: ModelVersion | None
) -> str:
    """Return why not to promote a version.

    Empty where it serves, or can score what lands now and was judged well against what serves.
    """
    if champion and champion.version == chosen.version:
        return ""
    return "; ".join(filter(None, [unfit(here, dataset, chosen), _unpassed(chosen, champion)]))


def unfit(here: Installation, dataset: Dataset, version: ModelVersion) -> str:
    """Say why a version cannot score what lands from now on, and what to do; empty where it can."""
    try:
        why = here.detector(version).misfit(dataset)
    except ModelUnusable as fault:
        return f"version {version.version} cannot be loaded: {fault}"
    ways = f"train again (vaewatch train {dataset.name}), or change {dataset.named_file} back"
    return f"version {version.version} cannot score what lands from now on: {why}; {ways}" if why else ""


def _unpassed(chosen: ModelVersion, champion: ModelVersion | None) -> str:
    """Return why a version is not known to be as good as what serves; empty where it was judged so."""
    tags, serving = chosen.tags, str(champion.version) if champion else ""
    judge = f"vaewatch evaluate {chosen.dataset} --version {chosen.version}"
    if "decision" not in tags:
        return f"version {chosen.version} was never judged ({judge} does that)"
    if tags["decision"] != "promote":
        refused = "was " if tags["decision"] == "refuse" else ""
        return f"version {chosen.version} {refused}{tags['decision_reason']}"
    # the champion of that time counts even where it could not be measured; older versions lack its tag
    beside = tags.get("evaluated_beside", tags.get("evaluated_against", ""))
    if beside != serving:
        judged = f"version {beside}" if beside else "no champion"
        now = f"version {serving} serves" if serving else "none serves"
        return f"version {chosen.version} was judged against {judged}, and now {now}: evaluate it again ({judge})"
    return ""


def _nobody(dataset: Dataset, versions: Sequence[ModelVersion]) -> str:
    """Say that there is no challenger, what is known of the newest version instead, and what to do."""
    name = dataset.name
    if not versions:
        return f"{name} has no challenger, and no version at all: vaewatch train {name}"
    newest = versions[-1]
    there = f"{name} has no challenger; version {newest.version}, the newest,"
    if "champion" in newest.aliases:
        return f"{there} serves already"
    tags = newest.tags
    if "rejected_by" in tags:
        said = f"was rejected by {tags['rejected_by']}"
    elif "promoted_by" in tags:
        said = "has served before"
    elif tags.get("decision") == "refuse":
        said = f"was {tags['decision_reason']}"
    else:
        said = f"was not judged yet (vaewatch evaluate {name})"
    override = f"vaewatch promote {name} --version {newest.version} --reason WHY"
    return f"{there} {said}; to promote it all the same: {override}"


def _overtaken(dataset: Dataset, chosen: ModelVersion, now: ModelVersion) -> str:
    tags = now.tags
    return (
        f"{dataset.name}: version {now.version} became champion meanwhile (by {tags.get('promoted_by', 'somebody')}, "
        f"{tags.get('promoted_at', '')}); version {chosen.version} was not promoted: evaluate it again "
        f"(vaewatch evaluate {dataset.name} --version {chosen.version})"
    )


def _displaced(dataset: Dataset, chosen: ModelVersion, now: ModelVersion | None) -> str:
    anyway = f"vaewatch promote {dataset.name} --version {chosen.version} --reason WHY"
    lost = f"{dataset.name}: version {chosen.version} was not promoted: it is not the challenger any more"
    if now is None:
        return f"{lost}, and no other version is. To promote it anyway: {anyway}"
    judged = {"promote": "passed its gates", "refuse": "was refused by its gates", "wait": "is in its shadow"}
    became = judged.get(now.tags.get("decision", ""), "is not evaluated")
    return f"{lost}; version {now.version} is, which {became}. Decide on version {now.version}, or promote version {chosen.version} anyway: {anyway}"


def evidence(here: Installation, dataset_name: str, version: int | None = None) -> Asked:
    """Return what a person should see before a version (default: the challenger) becomes champion.

    It as Markdown, what speaks against it (a promotion in sight of that overrides it), and whether it is the
    challenger. The outcome is `serving` where the version is champion already, else `waiting`.

    Raises:
        NotReady: there is no such version, or no challenger.
    """
    from pipeline.evaluation import approval

    dataset = here.dataset(dataset_name)
    champion = here.registry.champion(dataset.name)
    chosen = _chosen(here, dataset, version)
    serves = champion is not None and champion.version == chosen.version
    objection = _objection(here, dataset, chosen, champion)
    kept = here.registry.evaluation(chosen) if "decision" in chosen.tags else None
    return Asked(
        "evidence",
        dataset.name,
        "serving" if serves else "waiting",
        model_version=chosen.version,
        markdown=approval.evidence(chosen, champion, kept, objection),
        objection=objection,
        is_challenger="challenger" in chosen.aliases,
    )


def reject(here: Installation, dataset_name: str, version: int, *, by: str, reason: str) -> Receipt:
    """Record that a version shall not serve; it is no longer challenger."""
    dataset = here.dataset(dataset_name)
    changed = here.registry.reject(dataset.name, version, by=by, reason=reason or NO_REASON)
    _retell(here, dataset, version)
    return Receipt("reject", dataset.name, "rejected" if changed else "unchanged", (), version)


def rollback(
    here: Installation, dataset_name: str, *, by: str, reason: str, say: Say = lambda _: None
) -> Promoted:
    """Make the previous champion champion again, and have the pages say so.

    Those of the newest batches that the other one scored, and of its newest in MLflow. Interrupted, the next
    call writes them.

    Raises:
        NotReady: there is no earlier one; the pages of what was rolled back last are written all the same.
            Or it cannot score what lands now, and nothing was changed.
    """
    dataset = here.dataset(dataset_name)
    _check_earlier(here, dataset)
    with here.ledger.changing_champion(dataset.name) as note:
        try:
            done: Promotion | NotReady = here.registry.rollback(
                dataset.name, by=by, reason=reason or NO_REASON
            )
        except NotReady as refused:
            done = refused
        if serves := here.registry.champion(dataset.name):
            note(serves.version)
    left = _taken_back(here, dataset)
    if left:
        _tell_of_rollback(here, dataset, left, say)
    if isinstance(done, NotReady):
        raise done
    kept = _flags_kept(here, dataset, left.version if left else None, done.champion)
    return Promoted(
        "rollback",
        dataset.name,
        "rolled back",
        model_version=done.champion,
        alias="champion",
        next=kept or f"nothing: version {done.champion} scores what lands from now on",
        previous=done.previous,
    )


def _check_earlier(here: Installation, dataset: Dataset) -> None:
    """Refuse to bring back a version with which every night would fail."""
    earlier = here.registry.previous(dataset.name)
    if earlier and (why := unfit(here, dataset, earlier)):
        anyway = f"vaewatch promote {dataset.name} --version {earlier.version} --reason WHY"
        raise NotReady(f"{dataset.name}: {why}; nothing was changed; to go back to it all the same: {anyway}")


def _taken_back(here: Installation, dataset: Dataset) -> ModelVersion | None:
    """Return the version that was rolled back last, unless it has been promoted since."""
    from pipeline.report.standing import withdrawn

    serving, versions = here.ledger.serving_version(dataset.name), here.registry.versions(dataset.name)
    found = [one for one in versions if withdrawn(one, serving)]
    return max(found, key=lambda one: one.tags["rolled_back_at"], default=None)


def _tell_of_rollback(here: Installation, dataset: Dataset, left: ModelVersion, say: Say) -> None:
    from pipeline.report import newest

    batches = here.ledger.current(dataset.name).values()
    _retell(here, dataset, left.version)
    newest.rewrite(here, dataset, left, batches, say)
    newest.keep(here, dataset, left, batches, say)


def _retell(here: Installation, dataset: Dataset, number: int) -> None:
    """Rewrite the page of a version's training with what became of it."""
    from pipeline.report import gates

    gates.onto_training_page(here, dataset, here.registry.version(dataset.name, number))


def _flags_kept(here: Installation, dataset: Dataset, before: int | None, now: int) -> str:
    """Say what becomes of the batches scored by a version that no longer serves; else return ""."""
    from pipeline.report.standing import flags_kept

    flagged = here.ledger.flagged(dataset.name, before) if before is not None else []
    return flags_kept(dataset.name, {one.batch_id for one in flagged}, before or 0, now)
