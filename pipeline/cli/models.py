"""Verbs about model versions: judging, promoting, comparing, reproducing, copying and pruning them.

Belongs here: arguments, and what a person or a machine reads. Does not: any work (steps/, evaluation/,
registry/).
"""

from __future__ import annotations

import getpass
import sys
from functools import partial
from typing import Annotated

import typer

from pipeline.cli.arguments import (
    AsJson,
    By,
    DatasetName,
    Reason,
    finish,
    print_json,
    told,
    training_progress,
)

verbs = typer.Typer()
ASKED = "why (kept in the history; Enter for no reason)"
Version = Annotated[int, typer.Argument(help="number of a model version")]


@verbs.command()
def evaluate(
    dataset: DatasetName,
    version: Annotated[
        int | None, typer.Option(help="model version; default: the newest, or the challenger in its shadow")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Judge a challenger against the champion, on records that neither has seen; a first model that passes
    serves at once.
    """
    from pipeline import steps
    from pipeline.installation import Installation

    finish([told(as_json, partial(steps.evaluate, Installation(), dataset, version))], as_json)


@verbs.command()
def promote(
    dataset: DatasetName,
    version: Annotated[
        int | None,
        typer.Option(
            help="model version; one that is refused or not judged needs --reason; default: the challenger"
        ),
    ] = None,
    by: By = "",
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Make a model version champion; the champion until now becomes `previous`."""
    from pipeline import steps
    from pipeline.installation import Installation

    who, named = by or getpass.getuser(), version is not None
    given = partial(steps.promote, Installation(), dataset, version, by=who, reason=reason, override=named)
    finish([told(as_json, given)], as_json)


@verbs.command()
def rollback(dataset: DatasetName, by: By = "", reason: Reason = "", as_json: AsJson = False) -> None:
    """Make the previous champion champion again."""
    from pipeline import steps
    from pipeline.installation import Installation

    here, why = Installation(), reason
    here.dataset(dataset)  # one that is not there is said before anything is asked
    if not reason and not as_json and sys.stdin.isatty():
        why = typer.prompt(ASKED, default="", show_default=False, err=True).strip()
    given = partial(steps.rollback, here, dataset, by=by or getpass.getuser(), reason=why)
    finish([told(as_json, given)], as_json)


@verbs.command()
def compare(
    dataset: DatasetName,
    version: Annotated[
        int | None, typer.Argument(metavar="[A]", help="default: what evaluate would judge")
    ] = None,
    other: Annotated[int | None, typer.Argument(metavar="[B]", help="default: the champion")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure version A against version B as an evaluation would, with records that they disagree on; nothing
    is kept.
    """
    from pipeline import steps
    from pipeline.display.models import print_comparison
    from pipeline.installation import Installation

    found = steps.compare(Installation(), dataset, version, other)
    if as_json:
        return print_json({"decision": found.decision.as_dict(), "evidence": found.evidence.as_dict()})
    return print_comparison(found)


@verbs.command()
def versions(
    dataset: DatasetName,
    version: Annotated[
        int | None, typer.Argument(help="number of one: shows all that is known of it")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List every model version: its alias, when and on what it was trained, what it finds, what the gates
    said, and whether pruning keeps it; or all that is known of one.
    """
    from pipeline import steps
    from pipeline.display.models import print_version, print_versions
    from pipeline.installation import Installation

    if version is not None:
        one = steps.version(Installation(), dataset, version)
        return print_json(one) if as_json else print_version(one)
    found = steps.versions(Installation(), dataset)
    return print_json(found) if as_json else print_versions(dataset, found)


@verbs.command()
def history(dataset: DatasetName, as_json: AsJson = False) -> None:
    """List what was trained, judged, promoted and rolled back: when, by whom, why, on what evidence."""
    from pipeline import steps
    from pipeline.display.models import print_history
    from pipeline.installation import Installation

    events = steps.history(Installation(), dataset)
    print_json(events) if as_json else print_history(events)


@verbs.command()
def reproduce(dataset: DatasetName, version: Version, as_json: AsJson = False) -> None:
    """Train a version again from what was noted of it: equal to the bit, or where they first differ and
    why.
    """
    from pipeline import steps
    from pipeline.installation import Installation

    with training_progress(as_json) as on_progress:
        receipt = told(
            as_json, partial(steps.reproduce, Installation(), dataset, version, on_progress=on_progress)
        )
    finish([receipt], as_json)


@verbs.command()
def copy(
    dataset: DatasetName,
    version: Version,
    to: Annotated[
        str, typer.Option("--to", help="environment, described by VAEWATCH_TO_<NAME>_TRACKING_URI …")
    ],
    by: By = "",
    as_json: AsJson = False,
) -> None:
    """Copy a version with its evidence to another environment's registry; there it is evaluated like any
    other.
    """
    from pipeline import steps
    from pipeline.installation import Installation

    finish([steps.copy(Installation(), dataset, version, to=to, by=by or getpass.getuser())], as_json)


@verbs.command()
def prune(
    dataset: DatasetName,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="only say what would go, and why the rest stays")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Remove model versions that retention does not keep, with their runs and files, for good."""
    from pipeline import steps
    from pipeline.display.models import print_pruning
    from pipeline.installation import Installation

    receipt = steps.prune(Installation(), dataset, dry_run=dry_run)
    if as_json:
        return print_json(receipt.as_dict())
    return print_pruning(receipt)
