"""What is done with registered versions: trained again, removed.

Belongs here: the steps reproduce and prune. Does not: which version serves (serving.py), or how any part works.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from pipeline.installation import Installation
from pipeline.receipts import Receipt
from pipeline.steps.keys import Say


def reproduce(
    dataset_name: str,
    version: int,
    *,
    on_progress: Callable[[Any], None] | None = None,
    installation: Installation | None = None,
) -> Receipt:
    """Train a version again from what was noted of it; its outcome is `equal`, to the bit, or `different`.

    Nothing is logged or registered.

    Raises:
        NotReady: there is no such version, or hardly any of its records are there any more.
        ModelUnusable: what it was made of was not noted, or cannot be read.
    """
    from pipeline import reproduction
    from pipeline.provenance import Note

    here = installation or Installation()
    dataset = here.dataset(dataset_name)
    chosen, noted = here.registry.note(dataset.dataset, version)
    registered = here.registry.fetch(chosen, here.settings.home / "models")
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
            on_progress=on_progress,
        )
    outcome = "equal" if found.is_equal else "different"
    said = "weights, calibration and features are the same to the bit" if found.is_equal else found.difference
    return Receipt(
        "reproduce", dataset.dataset, outcome, (), version, None, {"reason": said, **asdict(found)}
    )


def prune(
    dataset_name: str,
    *,
    dry_run: bool = False,
    say: Say = lambda _: None,
    installation: Installation | None = None,
) -> Receipt:
    """Remove for good what retention does not keep: model versions, their runs and files, and what lies here of them.

    Its outcome is `pruned`, `unchanged` where nothing is to go, or `dry run`. Interrupted, it ends the same the next time.

    Raises:
        RegistryUnreachable, StorageFailed: what went until then is gone; a retry goes on.
    """
    from pipeline import retention

    here = installation or Installation()
    dataset = here.dataset(dataset_name)
    name, registry, home = dataset.dataset, here.registry, here.settings.home
    fetched = sorted((home / "models" / name).glob("[0-9]*"))  # before the versions: what is new stays
    versions, previous = registry.versions(name), registry.previous(name)
    reasons = retention.reasons_to_keep(
        versions,
        newest=dataset.retention.versions,
        previous=previous.version if previous else None,
        judged=retention.judged(here.ledger, name),
        published=retention.published(here.ledger, here.tables(dataset), name),
        copies=registry.copies(name),
    )
    removed = registry.prune(name, [n for n, why in reasons.items() if not why], dry_run=dry_run)
    kept = {f"{version.version}-{version.run_id}" for version in versions if reasons[version.version]}
    left = [folder for folder in fetched if folder.name not in kept]
    left += retention.stopped(home / "work" / name / "checkpoints")
    n_local = sum(map(retention.size, left))
    for folder in [] if dry_run else left:
        shutil.rmtree(folder, ignore_errors=True)
    details = {
        "dry_run": dry_run,
        "kept": {number: list(why) for number, why in reasons.items() if why},
        "removed": [asdict(one) for one in removed],
        "n_bytes": sum(one.n_bytes for one in removed),
        "local": [str(folder.relative_to(home)) for folder in left],
        "n_bytes_local": n_local,
    }
    outcome = "dry run" if dry_run else "pruned" if removed or left else "unchanged"
    done = Receipt("prune", name, outcome, (), None, None, details)
    say(f"{name}: {len(removed)} trainings and {len(left)} folders {'would go' if dry_run else 'are gone'}")
    return done
