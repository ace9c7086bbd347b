"""The command line: one verb per step, the same functions that the DAGs call.

Belongs here: the program, its exit codes, and how errors end it; the verbs are in the modules beside this
one. Does not: any work (steps/) or how a table is laid out (display/). Nothing heavy is imported before a
verb needs it: `--help` must be instant.

Exit codes: 0 done; 1 failed; 2 usage, or not ready; 3 refused: a contract, or a model; 4 partly done.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from pipeline.cli import models, nightly, quarantine, review
from pipeline.cli.arguments import WholeSentences, say

app = typer.Typer(
    cls=WholeSentences,
    help="Nightly anomaly detection for tabular Parquet: contract, train, registry, score, review.",
    epilog="Exit codes: 0 done, 1 failed, 2 usage or not ready, 3 refused (contract, model), 4 partly done.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(nightly.verbs)
app.add_typer(models.verbs)
app.add_typer(review.verbs, name="review", cls=WholeSentences)
app.add_typer(quarantine.verbs, name="quarantine", cls=WholeSentences)


def main() -> None:
    """Run the command line; errors become one message and an exit code."""
    from pipeline.errors import VaewatchError

    code = 0
    try:
        app()
    except VaewatchError as fault:
        say(f"error: {fault.words}", err=True)
        code = fault.exit_code
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else int(done.code is not None)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # an orderly exit aborted one time in five, in native threads


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"vaewatch {version('vaewatch')}")
        raise typer.Exit


@app.callback()
def vaewatch(
    version: Annotated[  # the callback answers
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Nightly anomaly detection for tabular Parquet: contract, train, registry, score, review."""
