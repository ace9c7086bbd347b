"""Which model version serves.

Belongs here: arguments, and what a person or a machine reads. Does not: any work (steps/, registry/).
"""

from __future__ import annotations

import getpass
from typing import Annotated

import typer

from pipeline.cli.arguments import AsJson, By, DatasetName, Reason, finish

verbs = typer.Typer()


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
