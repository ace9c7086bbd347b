"""Arguments and output that the verbs share.

Belongs here: how a dataset, a batch or a person is named on every command line, and how receipts end a verb.
Does not: a verb.
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

FAILED, REFUSED, PARTLY = 1, 3, 4


class WholeSentences(TyperGroup):
    """Verbs whose sentences are whole: in their list they go on in the next line where others are cut at the
    terminal's edge, and what is wrong with an argument is said without the library's word for it.
    """

    def invoke(self, ctx: Any) -> Any:
        """Overrides: a verb's arguments are read within."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as fault:
            fault.message = sentence_of(fault.message)
            raise

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Overrides the list of typer's, which cuts each at one line."""
        named = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([
                (name, (verb.help or "").partition("\n\n")[0]) for name, verb in named if verb
            ])


def told(as_json: bool, work: Callable[..., Any]) -> Any:
    """Do work that says how it goes, on standard error so that standard output stays clean."""
    return work() if as_json else work(say=lambda line: say(f"  {line}", err=True))


def say(text: str, *, err: bool = False) -> None:
    """Tell a person, with commands as they can be typed."""
    from pipeline.display import as_typed

    typer.echo(as_typed(text), err=err)


def training_progress(as_json: bool) -> Any:
    """A bar on standard error while a model trains, where somebody looks; else nothing, and the step says how
    it goes.
    """
    from pipeline.display import training_progress

    return nullcontext() if as_json or not sys.stderr.isatty() else training_progress()


def finish(receipts: Sequence[Receipt], as_json: bool) -> None:
    """Print receipts and leave with the code they deserve."""
    from pipeline.display.nightly import print_receipt

    if as_json:
        print_json([receipt.as_dict() for receipt in receipts])
    else:
        for receipt in receipts:
            print_receipt(receipt)
    outcomes = _outcomes(receipts)
    if "partly done" in outcomes or ("refused" in outcomes and len(outcomes) > 1):
        raise typer.Exit(PARTLY)
    if "refused" in outcomes:
        raise typer.Exit(REFUSED)
    if "different" in outcomes:
        raise typer.Exit(FAILED)


def _outcomes(receipts: Sequence[Receipt]) -> set[str]:
    """What counts for the exit code.

    Beside other steps a refused challenger is a night as it should be: the champion serves on. A refused
    first model is all that counts of its dataset: nothing can be scored until somebody has looked.
    """
    if len(receipts) == 1:
        return {receipts[0].outcome}
    from pipeline.steps.receipts import Judged

    judged = [r for r in receipts if isinstance(r, Judged)]
    without = {r.dataset for r in judged if r.outcome == "refused" and r.champion is None}
    counted = {r.outcome for r in receipts if r.step != "evaluate" and r.dataset not in without}
    return counted | ({"refused"} if without else set())


def print_json(value: Any) -> None:
    """For machines, on standard output: a dataclass as an object, what JSON has no word for as text."""
    typer.echo(json.dumps(value, indent=2, default=_plain))


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)
