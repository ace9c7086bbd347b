"""`vaewatch quarantine`: what was set aside, and letting it in again.

Belongs here: arguments, and what a person or a machine reads. Does not: any work (steps/, results/views.py).
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from pipeline.cli.arguments import AsJson, BatchId, DatasetName, finish, print_json, told

verbs = typer.Typer(
    help="Show records and batches that were set aside, and let them in again.", no_args_is_help=True
)


@verbs.command("list")
def quarantine_list(dataset: DatasetName, as_json: AsJson = False) -> None:
    """List batches that were refused or have records set aside, with counts by reason."""
    from pipeline.display.nightly import print_quarantined
    from pipeline.installation import Installation
    from pipeline.results import views

    found = views.quarantined(Installation(), dataset)
    print_json(found) if as_json else print_quarantined(found)


@verbs.command("show")
def quarantine_show(
    dataset: DatasetName,
    batch: BatchId,
    limit: Annotated[int, typer.Option(min=1)] = 20,
    as_json: AsJson = False,
) -> None:
    """Show records of a batch that were set aside, with their reasons."""
    from pipeline.display.nightly import print_set_aside
    from pipeline.installation import Installation
    from pipeline.results import views

    found = views.set_aside(Installation(), dataset, batch, limit=limit)
    print_json(found) if as_json else print_set_aside(found)


@verbs.command("release")
def quarantine_release(dataset: DatasetName, batch: BatchId, as_json: AsJson = False) -> None:
    """Check a batch again after its contract was mended, and score what now passes."""
    from pipeline import steps
    from pipeline.installation import Installation

    finish(told(as_json, partial(steps.release, Installation(), dataset, batch)), as_json)
