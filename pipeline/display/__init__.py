"""What the command line prints: layout and colour.

Belongs here: what every verb prints with; the tables are in the modules beside this one. Does not: where the
numbers come from (results/views.py, steps/).
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text

from pipeline.numerals import in_full

NAME = "vaewatch"
VERBS = (
    "compare", "copy", "doctor", "evaluate", "history", "init", "metrics", "promote", "prune", "quarantine", "report",
    "reproduce", "review", "rollback", "run", "schema", "score", "status", "trace", "train", "validate", "versions",
)  # fmt: skip
COMMAND = re.compile(rf"(?<![\w/.-]){NAME}(?= (?:{'|'.join(VERBS)})\b)")
WIDE = 100  # characters per line from which on texts are wrapped, not cut
BESIDE = 120  # characters per line from which on texts stand beside counts, with 40 left for them
LONGEST = 500
# before, between and after the fits
BETWEEN = ("reading the records", "calibrating", "learning what reasons need")


class _Shell(Console):
    """A console that writes every command so that it can be typed in this shell.

    Where there is no terminal, a text is one line: a command that is wrapped cannot be copied.
    """

    def print(self, *objects: Any, **how: Any) -> None:
        """Override: tables keep their columns' widths."""
        if not self.file.isatty() and all(isinstance(one, str) for one in objects):
            how.setdefault("soft_wrap", True)
        super().print(*objects, **how)

    def render_str(self, text: str, **how: Any) -> Text:
        """Override: everything that is printed passes through here, cells of tables included."""
        return super().render_str(as_typed(text), **how)


def console(*, stderr: bool = False) -> Console:
    """Return a console as wide as the terminal, or wide enough where there is none."""
    stream = sys.stderr if stderr else sys.stdout
    return _Shell(stderr=stderr, width=None if stream.isatty() else 140, highlight=False)


def as_typed(text: str) -> str:
    """Return a text with its commands as they can be typed in this shell.

    What is stored or sent names the program alone, because it is read elsewhere, too.
    """
    return COMMAND.sub(lambda _: _called(), text)


def _called() -> str:
    """Return the program's name if the shell finds it by that, else its path as it was typed."""
    typed = Path(sys.argv[0])
    if typed.name != NAME or not typed.exists():
        return NAME
    found = shutil.which(NAME)
    return NAME if found and typed.samefile(found) else shlex.quote(sys.argv[0])


def print_lines(lines: Iterable[tuple[str, str]]) -> None:
    """Print names and their texts, a line each."""
    table = Table("", "", box=None, show_header=False)
    for name, text in lines:
        table.add_row(escape(name), escape(text))
    console().print(table)


def print_findings(findings: list[dict[str, Any]]) -> None:
    for finding in findings:
        mark = "[green]ok  [/green]" if finding["ok"] else "[red]mend[/red]"
        line = f"{mark} {escape(finding['what'])}: {escape(finding['found'])}"
        console().print(line, soft_wrap=True)  # a wrapped command cannot be copied


@contextmanager
def training_progress() -> Iterator[Callable[[Any], None]]:
    """Yield a callback that moves a progress bar for training, on standard error.

    The bar shows which of the two fits is running and how far it is; between fits it pulses and names the
    work.
    """
    columns = (TextColumn("  training"), BarColumn(), TextColumn("{task.fields[note]}"), TimeElapsedColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as progress:
        task, fit = progress.add_task("training", total=None, note=BETWEEN[0]), 1
        started = progress.tasks[0].start_time

        def advance(now: Any) -> None:
            nonlocal task, fit
            if now.step < now.steps:
                note = f"fit {fit} of 2, loss {now.loss:.3f} nats"
                progress.update(task, total=now.steps, completed=now.step, note=note)
                return
            progress.remove_task(task)
            task = progress.add_task("training", total=None, note=BETWEEN[min(fit, 2)])
            progress.tasks[0].start_time = started  # one clock for all of it
            fit += 1

        yield advance


def as_bytes(n: int) -> str:
    return f"{n / 2**20:.1f} MiB" if n >= 2**20 else f"{n / 2**10:.1f} KiB"


def in_utc(at: str) -> str:
    """Format one of the registry's times, which are in UTC."""
    return f"{at[:16].replace('T', ' ')} UTC" if at else ""


def columns(*names: str, right: Collection[str] = ()) -> Table:
    """Return a table that wraps texts longer than their column: a name that is cut is a different name.

    Args:
        right: columns of numbers, aligned to the right.
    """
    made = [Column(name, overflow="fold", justify="right" if name in right else "left") for name in names]
    return Table(*made, box=None)


def fitted(text: str, most: int) -> str:
    """Cut a text to `most` characters on a narrow terminal, to LONGEST on a wide one."""
    return shortened(text, most if console().width < WIDE else LONGEST)


def shown(value: Any) -> str:
    """Format a value of a record, which may be missing."""
    return "missing" if value is None else str(value)


def marked(value: Any, is_quantity: bool = False) -> str:
    """The same with commas between thousands, as the pages have them."""
    return "missing" if value is None else in_full(value, is_quantity)


def shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
