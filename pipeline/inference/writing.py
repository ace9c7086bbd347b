"""A dataset file as text: every guess with its reason as a comment.

Belongs here: YAML that a person will read and edit. Does not: the guesses themselves (guesses.py, shapes.py).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

import yaml

from pipeline import sql
from pipeline.inference.guesses import Guess, Guesses
from pipeline.inference.shapes import Shape

# of a day's records; the most is the default of flag.review_budget
BUDGET_SHARE, MOST_BUDGET = 0.01, 20
MOST_AWAITED = 1000  # records: the default of train.min_records
PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./-]*")


@dataclass(frozen=True)
class Sample:
    """What was looked at: how many files there are, how many of them were read, and the records in those."""

    n_files: int
    n_sampled: int
    n_records: int

    @property
    def words(self) -> str:
        return f"{self.n_records:,} records in {self.n_sampled:,} of {self.n_files:,} files"


ROLES = """\
columns:
  # role: numeric and categorical are modelled, context is what they are judged by, ignored is checked and shown.
  # min, max: extrapolated from the sample, far beyond it, from its numbers alone: correct those that you know better (no pH is above 14).
  # A record beyond is set aside, unscored: bounds are for impossible values; the model judges rare ones.
  # missing: in the sample, which is only a part; if a value must not be missing, add required: true.
"""
LEVELS = """\
  # Judged by its derived columns: a level wanders with the seasons, its changes do not. With role: numeric it is judged itself, too.
"""


def written(
    name: str, path: str, shape: Shape, guesses: Guesses, looked_at: Sample, files_a_day: tuple[float, str]
) -> str:
    """Return the whole file.

    Args:
        files_a_day: how many files make a day or a batch, and which of the two.
    """
    n_files, unit = (1 / 30, "day") if guesses.split else files_a_day
    per_day = looked_at.n_records / max(1, looked_at.n_sampled) * n_files
    head = _head(name, path, shape, guesses, looked_at)
    body = ROLES + (LEVELS if guesses.levels else "") + "".join(map(_column_lines, guesses.columns))
    derived = _derived_lines(guesses.levels, {g.name for g in guesses.columns}) if guesses.levels else ""
    counted = f"the sample's {per_day:,.0f} records a {unit}"
    return head + body + derived + _tail(per_day, counted)


def _head(
    name: str,
    path: str,
    shape: Shape,
    guesses: Guesses,
    looked_at: Sample,
) -> str:
    lines = [
        f"# Written by `vaewatch init` from {looked_at.words}. Each guess says why: read, mend, keep.",
        f"dataset: {plain(name)}",
        "incoming:",
        f"  path: {plain(path)}",
        f"  files: {plain(shape.files)}  # {shape.why}",
    ]
    if guesses.split:
        lines.append(f"  split: {guesses.split}  # each file holds many days: one batch a day")
    lines.append(
        f"key: {plain(guesses.key)}"
        if guesses.key
        else "key: []  # no column tells records apart: their whole content does"
    )
    if guesses.time:
        lines.append(f"time: {plain(guesses.time)}")
    return "\n".join(lines) + "\n\n"


def _column_lines(guess: Guess) -> str:
    settings = {"type": guess.type, "role": guess.role, **guess.rules}
    inside = ", ".join(f"{k}: {plain(v)}" for k, v in settings.items())
    return f"  {plain(guess.name)}: {{{inside}}}  # {guess.why}\n"


def _derived_lines(names: Sequence[str], taken: Set[str]) -> str:
    lines = [
        "derived:  # records follow each other in equal steps: each is judged against the ones before it"
    ]
    for name in names:
        column = sql.name(name)
        for suffix, expression in (
            ("change", f"{column} - lag({column}) OVER by_time"),
            ("from_hour", f"{column} - median({column}) OVER the_hour"),
            ("from_day", f"{column} - median({column}) OVER the_day"),
        ):
            if f"{name}_{suffix}" not in taken:
                lines.append(f"  {plain(f'{name}_{suffix}')}: {plain(expression)}")
    return "\n".join(lines) + "\n"


def _tail(per_day: float, counted: str) -> str:
    budget, why = _budget(per_day, counted)
    return f"""
batch:
  max_set_aside: 0.05  # a batch is refused if row rules set aside a larger share of it
train:
  schedule: "0 2 * * *"  # every night at two, UTC
  window_days: 30  # how many of the newest days a training learns from
  min_records: {max(100, min(MOST_AWAITED, round(per_day * 3)))}  # no training with fewer: about three days of records, at least 100, at most {MOST_AWAITED}
flag:
  # a normal day flags as many as the budget, a day of an event more; where that lasts, add cap: {3 * budget} to keep a batch to its {3 * budget} most severe
  review_budget: {budget}  # records a day that people can look at. Here: {why}
"""


def _budget(per_day: float, counted: str) -> tuple[int, str]:
    """Return how many records a day to put before people, and why."""
    share = round(per_day * BUDGET_SHARE)
    part = f"{BUDGET_SHARE:.0%} of {counted}"
    if share > MOST_BUDGET:
        return MOST_BUDGET, f"the default, as {part} is more"
    return (share, part) if share else (1, f"{part} is less than one")


def plain(value: Any) -> str:
    """Return a YAML scalar on one line, quoted where YAML would read anything else than this text."""
    if isinstance(value, str) and PLAIN.fullmatch(value) and yaml.safe_load(value) == value:
        return value
    style = None
    if isinstance(value, str):
        style = "'" if value.isprintable() else '"'  # only the latter can write a line's end on one line
    written: str = yaml.safe_dump(value, default_style=style, allow_unicode=True, width=math.inf)
    return written.removesuffix("\n").removesuffix("\n...")
