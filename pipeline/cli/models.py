"""Which model version serves, and what becomes of the others.

Belongs here: arguments, and what a person or a machine reads. Does not: any work (steps/, registry/).
"""

from __future__ import annotations

import getpass
from typing import Annotated

import typer

from pipeline.cli.arguments import AsJson, By, DatasetName, Reason, finish, print_json, training_progress

verbs = typer.Typer()
Version = Annotated[int, typer.Argument(help="number of a model version")]


@verbs.command()
def promote(
    dataset: DatasetName,
    version: Annotated[int | None, typer.Option(help="model version; default: the challenger")] = None,
    by: By = "",
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Make a model version champion; the champion until now becomes `previous`."""
    from pipeline import steps

    finish([steps.promote(dataset, version, by=by or getpass.getuser(), reason=reason)], as_json)


@verbs.command()
def rollback(dataset: DatasetName, by: By = "", reason: Reason = "", as_json: AsJson = False) -> None:
    """Make the previous champion champion again."""
    from pipeline import steps

    finish([steps.rollback(dataset, by=by or getpass.getuser(), reason=reason)], as_json)


@verbs.command()
def reproduce(dataset: DatasetName, version: Version, as_json: AsJson = False) -> None:
    """Train a version again from what was noted of it: equal to the bit, or where they first differ and why."""
    from pipeline import steps

    with training_progress(as_json) as on_progress:
        receipt = steps.reproduce(dataset, version, on_progress=on_progress)
    finish([receipt], as_json)


@verbs.command()
def prune(
    dataset: DatasetName,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="only say what would go, and why the rest stays")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Remove model versions that retention does not keep, with their runs and files, for good."""
    from pipeline import display, steps

    receipt = steps.prune(dataset, dry_run=dry_run)
    if as_json:
        return print_json(receipt.as_dict())
    return display.print_pruning(receipt.details)
