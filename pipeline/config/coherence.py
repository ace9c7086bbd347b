"""Whether a dataset's settings are consistent: columns that are named exist and are of a suitable kind.

Belongs here: faults between settings, with the place of each, in a file that may have other faults as well.
Does not: what is wrong with a setting by itself (dataset.py, columns.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from pipeline.config.columns import TIMES

Fault = tuple[tuple[str, ...], str]  # where in the file, and what
Columns = Mapping[str, Mapping[str, Any]]


def between_settings(raw: Mapping[str, Any]) -> list[Fault]:
    """Return faults between a dataset's settings, and where, ignoring settings faulty by themselves."""
    columns = raw.get("columns")
    if not isinstance(columns, dict):
        return []
    promised = {name: column if isinstance(column, dict) else {} for name, column in columns.items()}
    looks = (_key, _time, _split, _derived, _noise, _encoder, _entity, _modelled, _names)
    return list(chain.from_iterable(look(raw, promised) for look in looks))


def _key(raw: Mapping[str, Any], columns: Columns) -> Iterator[Fault]:
    for name in _listed(raw.get("key")):
        if isinstance(name, str) and name not in columns:
            yield ("key",), f"key column {name!r} is not among the columns"


def _time(raw: Mapping[str, Any], columns: Columns) -> Iterator[Fault]:
    time = raw.get("time")
    if not isinstance(time, str):
        return
    type_ = columns.get(time, {}).get("type")
    if time not in columns:
        yield ("time",), f"time column {time!r} is not among the columns"
    elif isinstance(type_, str) and type_ not in TIMES:
        yield ("time",), f"time column {time!r} has type {type_}"


def _split(raw: Mapping[str, Any], _columns: Columns) -> Iterator[Fault]:
    incoming = raw.get("incoming")
    if isinstance(incoming, dict) and incoming.get("split") and raw.get("time") is None:
        yield ("incoming", "split"), "needs a time column: set `time`"


def _derived(raw: Mapping[str, Any], columns: Columns) -> Iterator[Fault]:
    derived = raw.get("derived")
    if not isinstance(derived, dict) or not derived:
        return
    for name in sorted(set(derived) & set(columns)):
        yield ("derived", name), f"derived column {name!r} is among the columns already"
    if raw.get("time") is None:
        yield ("derived",), "needs a time column: set `time`"


def _recipe(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    train = raw.get("train")
    recipe = train.get("recipe") if isinstance(train, dict) else None
    return recipe if isinstance(recipe, dict) else {}


def _noise(raw: Mapping[str, Any], columns: Columns) -> Iterator[Fault]:
    recipe = _recipe(raw)
    noise = recipe.get("column_noise")
    for name in noise if isinstance(noise, dict) else ():
        if name not in (raw.get("derived") or {}) and columns.get(name, {}).get("role") != "numeric":
            where = ("train", "recipe", "column_noise")
            yield where, f"column {name!r} does not have role numeric, so it takes no noise model"


def _encoder(raw: Mapping[str, Any], columns: Columns) -> Iterator[Fault]:
    recipe = _recipe(raw)
    if recipe.get("encoder") != "exact":
        return
    if categories := [name for name, column in columns.items() if column.get("role") == "categorical"]:
        where = ("train", "recipe", "encoder")
        yield (
            where,
            f"exact takes numeric columns only: column {categories[0]!r} has role categorical",
        )


def _entity(raw: Mapping[str, Any], columns: Columns) -> Iterator[Fault]:
    for name in _listed(raw.get("entity")):
        if name not in columns:
            yield ("entity",), f"entity column {name!r} is not among the columns"


def _modelled(raw: Mapping[str, Any], columns: Columns) -> Iterator[Fault]:
    roles = [column.get("role", "ignored") for column in columns.values()]
    if not raw.get("derived") and all(role in ("context", "ignored") for role in roles):
        yield ("columns",), "no column has role numeric or categorical: there is nothing to model"


def _names(_raw: Mapping[str, Any], columns: Columns) -> Iterator[Fault]:
    if columns.get("", {}).get("type", "other") != "other":
        yield ("columns", ""), "a column without a name can only have type other"
    folded = [str(name).casefold() for name in columns]
    twice = sorted(str(name) for name in columns if folded.count(str(name).casefold()) > 1)
    if twice:
        message = f"columns {', '.join(twice)} differ in case only, which tables cannot hold"
        yield ("columns", twice[-1]), message


def _listed(value: Any) -> list[Any]:
    """Return a list, or a single name as a list of one; anything else is a fault by itself."""
    return value if isinstance(value, list) else [value] if isinstance(value, str) else []
