"""Arguments and output that the verbs share.

Belongs here: how a dataset, a batch or a person is named on every command line, and how receipts become an
exit code. Does not: a verb.
"""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from pipeline.misread import sentence_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pipeline.steps.receipts import Receipt

DatasetName = Annotated[
    str, typer.Argument(metavar="DATASET", help="a dataset's name, see `vaewatch status`")
]
AnyDataset = Annotated[str | None, typer.Argument(metavar="[DATASET]", help="default: every dataset")]
BatchId = Annotated[str, typer.Argument(help="a batch_id")]
Key = Annotated[
    str | None, typer.Argument(metavar="[BATCH]", help="a batch_id, or first..last; default: all due")
]
AsJson = Annotated[bool, typer.Option("--json", help="machine-readable output on standard output")]
By = Annotated[str, typer.Option("--by", help="who decides; default: you")]
Reason = Annotated[str, typer.Option("--reason", help="why; kept as a tag on the version")]

INTERRUPTED = (
    "interrupted; nothing is left half-done. Give the same command again to do what is left; a training of the same records "
    "goes on from its last checkpoint"
)
FAILED, REFUSED, PARTLY = 1, 3, 4


class WholeSentences(TyperGroup):
    """A group of verbs that shows whole sentences.

    Its list wraps a verb's help instead of cutting it at the terminal's edge, and a bad argument is reported
    without the validation library's prefix.
    """

    def invoke(self, ctx: Any) -> Any:
        """Override: a verb's arguments are parsed within this call."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as fault:
            fault.message = sentence_of(fault.message)
            raise

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Override typer's list, which cuts each verb's help to one line."""
        named = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([
                (name, (verb.help or "").partition("\n\n")[0]) for name, verb in named if verb
            ])


def told(as_json: bool, work: Callable[..., Any]) -> Any:
    """Run `work`; except for JSON, it reports progress on standard error, so standard output stays clean."""
    try:
        return work() if as_json else work(say=lambda line: say(f"  {line}", err=True))
    except KeyboardInterrupt:
        say(INTERRUPTED, err=True)
        raise


def say(text: str, *, err: bool = False) -> None:
    """Print a text for a person, with commands as they can be typed."""
    from pipeline.display import as_typed

    typer.echo(as_typed(text), err=err)


def training_progress(as_json: bool) -> Any:
    """Return a progress bar on standard error if that is a terminal; else a context that shows nothing."""
    from pipeline.display import training_progress

    return nullcontext() if as_json or not sys.stderr.isatty() else training_progress()


def finish(receipts: Sequence[Receipt], as_json: bool) -> None:
    """Print receipts and exit with the code they call for."""
    from pipeline.display.nightly import print_receipt

    if as_json:
        print_json([receipt.as_dict() for receipt in receipts])
    else:
        for receipt in receipts:
            print_receipt(receipt)
    failed = [receipt for receipt in receipts if receipt.outcome == "failed"]  # of one dataset of several
    if failed:
        raise typer.Exit(FAILED if len(failed) == len(receipts) else PARTLY)
    outcomes = _outcomes(receipts)
    if "partly done" in outcomes or ("refused" in outcomes and len(outcomes) > 1):
        raise typer.Exit(PARTLY)
    if "refused" in outcomes:
        raise typer.Exit(REFUSED)
    if "different" in outcomes:
        raise typer.Exit(FAILED)


def _outcomes(receipts: Sequence[Receipt]) -> set[str]:
    """Return the outcomes that count for the exit code.

    Beside other steps, a refused challenger is a normal night: the champion serves on. If a dataset's first
    model is refused, nothing else counts for that dataset: nothing can be scored until somebody has looked.
    """
    if len(receipts) == 1:
        return {receipts[0].outcome}
    from pipeline.steps.receipts import Evaluated

    judged = [r for r in receipts if isinstance(r, Evaluated)]
    without = {r.dataset for r in judged if r.outcome == "refused" and r.champion is None}
    counted = {r.outcome for r in receipts if r.step != "evaluate" and r.dataset not in without}
    done = counted - {"unchanged", "waiting"}  # a step without work says nothing of how the others went
    return done | ({"refused"} if without else set())


def print_json(value: Any) -> None:
    """Print JSON on standard output: a dataclass as an object, and what JSON cannot express as text."""
    typer.echo(json.dumps(value, indent=2, default=_plain))


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)
