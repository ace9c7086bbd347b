"""What is done with registered versions: trained again to the bit.

Belongs here: the step reproduce. Does not: which version serves (serving.py), or how any part works.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from pipeline.installation import Installation
from pipeline.receipts import Receipt


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
