"""What is done with registered versions: listed, trained again, copied, removed.

Belongs here: the steps reproduce, copy and prune, and what is shown of versions. Does not: which version
serves (serving.py), or how any part works.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pipeline.config.dataset import Dataset
from pipeline.errors import ModelUnusable
from pipeline.installation import Installation
from pipeline.steps.keys import Say
from pipeline.steps.learning import follow
from pipeline.steps.receipts import Pruned, Receipt, Reproduced

if TYPE_CHECKING:
    from pipeline.registry import ModelVersion


def reproduce(
    here: Installation,
    dataset_name: str,
    version: int,
    *,
    say: Say = lambda _: None,
    on_progress: Callable[[Any], None] | None = None,
) -> Reproduced:
    """Train a version again from its note; its outcome is `equal`, to the bit, or `different`.

    Nothing is logged or registered.

    Args:
        on_progress: called with each fit's progress, which is then not said.

    Raises:
        NotReady: there is no such version, or hardly any of its records are there any more.
        ModelUnusable: what it was made from was not noted, or cannot be read.
    """
    from pipeline.training import reproduction
    from pipeline.training.provenance import Note

    dataset = here.dataset(dataset_name)
    chosen, noted = here.registry.note(dataset.name, version)
    registered = here.model(chosen)
    took = chosen.metrics.get("training_seconds")
    as_long = f"; this takes about {took:,.0f} s, as its training did" if took else ""
    say(f"training version {version} again from what was noted of it{as_long}")
    with here.scratch(dataset, "reproduce") as scratch:
        found = reproduction.reproduce(
            dataset,
            Note.of(noted),
            chosen.tags.get("data_fingerprint", ""),
            registered,
            here.ledger,
            here.tables(dataset),
            scratch=scratch,
            threads=here.settings.cores,
            on_progress=follow(dataset, say, on_progress),
        )
    outcome = "equal" if found.is_equal else "different"
    said = "weights, calibration and features are the same to the bit" if found.is_equal else found.difference
    return Reproduced(
        "reproduce",
        dataset.name,
        outcome,
        model_version=version,
        reason=said,
        difference=found.difference,
        likely=found.likely,
        since=found.since,
    )


def copy(here: Installation, dataset_name: str, version: int, *, to: str, by: str) -> Receipt:
    """Copy a version with its evidence to another environment's registry.

    There it is judged like any other, or promoted by its number. Its outcome is `copied`, or `unchanged`
    where the same training is there already.

    Args:
        to: the environment's name, see copying.py.
        by: who wants it; on record with the copy.

    Raises:
        ConfigError: the environment is not described, or has no such dataset.
        NotReady: there is no such version.
        ModelUnusable: it does not fit the dataset's contract there; nothing was copied.
    """
    from pipeline.evaluation import copying

    dataset = here.dataset(dataset_name)
    there = copying.environment(to, here.settings)
    target = there.dataset(dataset_name)
    chosen = here.registry.version(dataset.name, version)
    folder = here.model(chosen)
    if reasons := copying.misfits(folder, chosen.tags.get("contract_hash", ""), target):
        raise ModelUnusable(
            f"version {version} of {dataset_name} does not fit the dataset of {to} ({target.file}): {'; '.join(reasons)}; "
            "nothing was copied"
        )
    tags = {
        "copied_from": f"version {version} of {here.registry.shown}",
        "copied_by": by,
        "copied_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    made, is_new = there.registry.copy_from(here.registry, chosen, tags)
    judge = f"vaewatch evaluate {dataset_name}"
    serve = f"vaewatch promote {dataset_name} --version {made.version} --reason WHY"
    reason = f"in {there.registry.shown}; to let it serve, run there: {judge}, or without the gates: {serve}"
    outcome = "copied" if is_new else "unchanged"
    return Receipt(
        "copy",
        dataset.name,
        outcome,
        model_version=made.version,
        alias=", ".join(made.aliases),
        reason=reason,
    )


def versions(here: Installation, dataset_name: str) -> list[dict[str, Any]]:
    """Return every model version, oldest first.

    With its aliases, when and on what it was trained, what was measured and decided, and why it stays: a
    version without a reason in `kept` goes with the next pruning.

    `metrics` are of the records that calibrated it. `holdout`, where it was judged: n records, recall of the
    anomalies injected into them at its own threshold, negative_elbo in nats of the columns' own units, and
    champion_recall, of the version that it was judged `against` on the same records. Those of two versions
    are of different records.
    """
    dataset = here.dataset(dataset_name)
    found = here.registry.versions(dataset.name)
    reasons = _reasons_to_keep(here, dataset, found)
    return [
        {
            "version": version.version,
            "aliases": list(version.aliases),
            "trained_at": version.created_at.isoformat(timespec="milliseconds"),
            "window": version.tags.get("window", ""),
            "metrics": dict(version.metrics),
            "holdout": json.loads(version.tags.get("evaluated_holdout", "{}")),
            "against": int(version.tags.get("evaluated_against") or 0) or None,
            "decision": version.tags.get("decision", ""),
            "decision_reason": version.tags.get("decision_reason", ""),
            "rejected_by": version.tags.get("rejected_by", ""),
            "copied_from": version.tags.get("copied_from", ""),
            "kept": list(reasons[version.version]),
        }
        for version in found
    ]


def version(here: Installation, dataset_name: str, number: int) -> dict[str, Any]:
    """Return one model version, as `versions` does, with more.

    That is `made_of`, what it `became` by whom, the `page` of its training (empty where it is not on this
    machine), and `evaluation` as it was kept (None where it was not judged).

    Raises:
        NotReady: there is no such version.
    """
    from pipeline.evaluation.told import made_of
    from pipeline.report.training import path_of

    found = here.registry.version(dataset_name, number)
    page = path_of(here, here.dataset(dataset_name), found)
    (row,) = (one for one in versions(here, dataset_name) if one["version"] == number)
    became = {
        what: {name: found.tags.get(f"{what}_{name}", "") for name in ("at", "by", "reason")}
        for what in ("promoted", "rolled_back", "rejected")
    }
    return row | {
        "dataset": dataset_name,
        "made_of": {name: text for name, text, _ in made_of(found, None)},
        "page": str(page) if page else "",
        "notes": [*json.loads(found.tags.get("decision_notes", "[]")), *found.notes],
        "evaluated_at": found.tags.get("evaluated_at", ""),
        "became": {what: told for what, told in became.items() if told["by"]},
        "evaluation": here.registry.evaluation(found) if row["decision"] else None,
    }


def _reasons_to_keep(
    here: Installation, dataset: Dataset, versions: Sequence[ModelVersion]
) -> dict[int, tuple[str, ...]]:
    from pipeline.evaluation import retention

    name = dataset.name
    previous = here.registry.previous(name)
    return retention.reasons_to_keep(
        versions,
        newest=dataset.retention.versions,
        previous=previous.version if previous else None,
        judged=retention.judged(here.ledger, name),
        published=retention.published(here.ledger, here.tables(dataset), name),
        copies=here.registry.copies(name),
    )


def prune(
    here: Installation, dataset_name: str, *, dry_run: bool = False, say: Say = lambda _: None
) -> Pruned:
    """Remove for good what retention does not keep: model versions, their runs and files, and local copies.

    Its outcome is `pruned`, `unchanged` where nothing is to go, or `dry run`. Interrupted, the next call
    completes it.

    Raises:
        RegistryUnreachable, StorageFailed: what went until then is gone; a retry goes on.
    """
    from pipeline.evaluation import retention

    dataset = here.dataset(dataset_name)
    name, registry, home = dataset.name, here.registry, here.settings.home
    fetched = sorted((home / "models" / name).glob("[0-9]*"))  # before the versions: anything newer stays
    versions = registry.versions(name)
    reasons = _reasons_to_keep(here, dataset, versions)
    removed = registry.prune(name, [n for n, why in reasons.items() if not why], dry_run=dry_run)
    kept = {f"{version.version}-{version.run_id}" for version in versions if reasons[version.version]}
    left = [folder for folder in fetched if folder.name not in kept]
    left += retention.stopped(home / "work" / name / "checkpoints")
    pages = {here.training_page(dataset, v.training_key) for v in versions if reasons[v.version]}
    left += [page for page in retention.stopped(here.training_page(dataset, "").parent) if page not in pages]
    n_local = sum(map(retention.size, left))
    for path in [] if dry_run else left:
        retention.remove(path)
    replaced = _replaced(here, dataset, [n for n, why in reasons.items() if why], dry_run=dry_run)
    say(
        f"{name}: {'would remove' if dry_run else 'removed'} {len(removed)} trainings, {len(left)} files and folders, and "
        f"{len(replaced)} files of replaced rows"
    )
    return Pruned(
        "prune",
        name,
        "dry run" if dry_run else "pruned" if removed or left or replaced else "unchanged",
        dry_run=dry_run,
        kept={number: why for number, why in reasons.items() if why},
        removed=tuple(removed),
        n_bytes=sum(one.n_bytes for one in removed),
        local=tuple(str(path.relative_to(home)) for path in left),
        n_bytes_local=n_local,
        n_files_replaced=len(replaced),
        n_bytes_replaced=sum(replaced),
    )


def _replaced(here: Installation, dataset: Dataset, kept: Sequence[int], *, dry_run: bool) -> list[int]:
    """Return sizes of the tables' files that nobody reads any more.

    What kept versions learned from is not among them, so that it can be learned again.
    """
    learned = []
    for version in kept:
        with contextlib.suppress(ModelUnusable):  # nothing was noted: it cannot be reproduced either
            learned.append(here.registry.note(dataset.name, version)[1]["records_version"])
    tables = here.tables(dataset)
    records = tables.vacuum("records", keep_versions=learned, dry_run=dry_run)
    return [*records, *tables.vacuum("scores", dry_run=dry_run)]
