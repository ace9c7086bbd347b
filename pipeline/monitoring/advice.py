"""How a column is named, and what to do about it.

For a delivered column, ask the source; for one that is computed here, look at the columns behind it.

Belongs here: words. Does not: whether there is anything to say (judgement.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.config.dataset import Dataset


def subject(dataset: Dataset, *names: str) -> str:
    """Name the columns, those of the delivery behind them first."""
    seen = " and ".join(names)
    if not _derived(dataset, names):
        return seen
    behind = " and ".join(dataset.sources(names)) or "order and times"
    return f"{behind}, seen in {seen}" if len(names) == 1 else f"{behind}: {seen}"


def about_column(dataset: Dataset, name: str, *, learned: bool) -> str:
    """Say what to do about values that are not as they were.

    Args:
        learned: the model that scored the batch was also trained on it.
    """
    first = f"ask the source what changed in {name!r}"
    if name in dataset.derived:
        first = f"{_look(dataset, [name])} for jumps, spikes or a standstill that were not there before"
    return f"{first}; {afterwards(dataset, learned=learned)}"


def about_pair(dataset: Dataset, one: str, other: str, *, learned: bool) -> str:
    """Say what to do about two columns that do not go together as they did."""
    if not _derived(dataset, (one, other)):
        asked = "ask the source whether one of them comes from another place now"
        return f"{asked}; {afterwards(dataset, learned=learned)}"
    behind = dataset.sources((one, other))
    what = "for jumps or spikes that only one of them has" if len(behind) > 1 else "for jumps or spikes"
    return f"{_look(dataset, (one, other))} {what}; {afterwards(dataset, learned=learned)}"


def afterwards(dataset: Dataset, *, learned: bool) -> str:
    """Say what to do once the source has answered.

    A training takes in what stays; with a batch that the model was trained on, that has happened.
    """
    if learned:
        return "if it is a fault, have the batch delivered again: the model learned from it as it is"
    return f"if it is there to stay, train again: vaewatch train {dataset.name}"


def _derived(dataset: Dataset, names: Sequence[str]) -> bool:
    return any(name in dataset.derived for name in names)


def _look(dataset: Dataset, names: Sequence[str]) -> str:
    behind = " and ".join(repr(name) for name in dataset.sources(names)) or "the records' order and times"
    return f"look at {behind} in the delivery"
