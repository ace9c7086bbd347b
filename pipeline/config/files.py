"""Datasets from their YAML files and the environment.

Belongs here: reading, and reporting every fault of a file in one message with its line and the nearest known
key. Does not: what is allowed (dataset.py).
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from pipeline.config.coherence import between_settings
from pipeline.config.dataset import Dataset
from pipeline.errors import ConfigError
from pipeline.misread import wrong

YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # seven times faster, where it was built


def dataset_files(folder: Path) -> list[Path]:
    """Return the files of a folder that describe a dataset, valid or not."""
    return sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])


def load_datasets(folder: Path) -> dict[str, Dataset]:
    """Return every dataset of a folder, by name.

    Raises:
        ConfigError: with every fault of every file.
    """
    found, faults = read_datasets(folder)
    if faults:
        raise ConfigError("\n".join(faults))
    return found


def read_datasets(folder: Path, only: str | None = None) -> tuple[dict[str, Dataset], list[str]]:
    """Return the datasets of a folder whose files are valid, by name, and what is wrong with the others.

    only: one dataset; where it has a file of its own, no other is read.
    """
    paths = dataset_files(folder)
    if only is not None:
        paths = [path for path in paths if path.stem == only] or paths
    found: dict[str, Dataset] = {}
    faults = []
    for path in paths:
        try:
            dataset = load_dataset(path)
        except ConfigError as fault:
            faults.append(str(fault))
            continue
        name = dataset.name
        if only not in {None, name}:
            continue
        twin = next((other for other in found if _prefix(other) == _prefix(name)), None)
        if twin == name:
            faults.append(f"{path}: dataset {name!r} is also in {found[name].file}, which is the one in use")
        elif twin:
            faults.append(
                f"{path}: datasets {twin!r} and {name!r} share the environment variables {_prefix(name)}*; rename one"
            )
        found.setdefault(name, dataset)
    return found, faults


def load_dataset(path: Path) -> Dataset:
    """Read one dataset file, with overrides from VAEWATCH_<DATASET>__<SECTION>__<KEY> in the environment.

    Raises:
        ConfigError: every fault in one message, with line numbers and the nearest known key.
    """
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=YAML_LOADER)
        raw = yaml.load(text, Loader=YAML_LOADER)  # noqa: S506  # the safe loader
        twice = [f"  line {line}: {key!r} is given twice" for key, line in _duplicates(root)]
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as fault:
        raise ConfigError(f"{path}: {_unreadable(fault)}") from fault
    if not isinstance(raw, dict) or root is None:
        raise ConfigError(f"{path}: must be a mapping of settings, see docs/reference/dataset.md")
    if "file" in raw:
        twice.append(
            f"  {_line_of(root, ('file',))}file: unknown key; leave it out, the file's own path is known"
        )
    variables = _override(raw, os.environ)
    try:
        dataset = Dataset.model_validate({**raw, "file": path.absolute()})
    except ValidationError as fault:
        found = [(e["loc"], _describe(e)) for e in fault.errors() if e["loc"]]
        found += [(loc, f"{'.'.join(loc)}: {message}") for loc, message in between_settings(raw)]
    else:
        found = _faulty_expressions(dataset)
    faults = [f"  {_origin(root, variables, loc)}{message}" for loc, message in found]
    if twice or faults:
        raise ConfigError(f"{path}:\n" + "\n".join(twice + faults))
    return dataset


def _unreadable(fault: Exception) -> str:
    """Say why a file is no YAML, and where; the reader knows it by its text alone."""
    if not isinstance(fault, yaml.MarkedYAMLError):
        return str(fault)
    at = [mark for mark in (fault.problem_mark, fault.context_mark) if mark]
    where = f"line {at[0].line + 1}, column {at[0].column + 1}: " if at else ""
    while_ = f", {fault.context}" if fault.context else ""
    begun = (
        f" that begins in line {fault.context_mark.line + 1}" if fault.context and fault.context_mark else ""
    )
    return f"{where}{fault.problem or 'is not YAML'}{while_}{begun}"


def _override(raw: dict[str, Any], environment: Mapping[str, str]) -> dict[tuple[str, ...], str]:
    """Lay values from the environment over a file's. Returns which variable set what."""
    prefix = _prefix(str(raw.get("dataset", "")))
    set_by: dict[tuple[str, ...], str] = {}
    for variable in sorted(name for name in environment if name.startswith(prefix)):
        loc: tuple[str, ...] = ()
        node = raw
        *sections, last = variable.removeprefix(prefix).lower().split("__")
        for section in sections:
            loc += (_same_key(node, section),)
            if not isinstance(node.get(loc[-1]), dict):
                node[loc[-1]] = {}
            node = node[loc[-1]]
        loc += (_same_key(node, last),)
        try:
            node[loc[-1]] = yaml.safe_load(environment[variable])
        except (ValueError, yaml.YAMLError) as fault:
            raise ConfigError(f"{variable}: {fault}") from fault
        set_by[loc] = variable
    return set_by


def _faulty_expressions(dataset: Dataset) -> list[tuple[tuple[Any, ...], str]]:
    if not dataset.derived:  # so that most datasets are read without pyarrow and DuckDB
        return []
    from pipeline.config import derived

    return [(("derived", name), f"derived.{name}: {why}") for name, why in derived.faults(dataset)]


def _prefix(dataset: str) -> str:
    return f"VAEWATCH_{dataset.upper().replace('-', '_')}__"


def _same_key(node: Mapping[str, Any], lowered: str) -> str:
    return next((key for key in node if str(key).lower() == lowered), lowered)


def _origin(root: yaml.Node, variables: Mapping[tuple[str, ...], str], loc: tuple[Any, ...]) -> str:
    """Return the variable that set this, else the line, else a variable that set something in it."""
    exact = [variable for set_, variable in variables.items() if loc[: len(set_)] == set_]
    inside = [variable for set_, variable in variables.items() if set_[: len(loc)] == loc]
    line = _line_of(root, loc)
    return f"{exact[0]}: " if exact else line or "".join(f"{variable}: " for variable in inside[:1])


def _describe(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["loc"][-1] == "[key]":
        return f"{'.'.join(error['loc'][:-2])}: YAML reads a name as {error['input']!r}: put it in quotes"
    if error["type"] == "extra_forbidden":
        *parents, key = error["loc"]
        known = _known_keys(Dataset, parents)
        near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        return f"{where}: unknown key; {hint}"
    message = wrong(error)
    return f"{where}: {message}" if where else message


def _known_keys(model: type[BaseModel], parents: list[Any]) -> list[str]:
    for part in parents:
        field = model.model_fields.get(str(part))
        if field is not None:
            inner = [a for a in (field.annotation, *get_args(field.annotation)) if isinstance(a, type)]
            model = next((a for a in inner if issubclass(a, BaseModel)), model)
    return [field.alias or name for name, field in model.model_fields.items() if name != "file"]


def _line_of(node: yaml.Node, loc: tuple[Any, ...]) -> str:
    line = None
    for part in loc:
        if not isinstance(node, yaml.MappingNode):
            break
        for key, value in node.value:
            if _is_key(key, part):
                node, line = value, key.start_mark.line + 1
                break
    return f"line {line}: " if line else ""


def _is_key(key: yaml.Node, part: Any) -> bool:
    """Return whether pydantic means this key; YAML reads yes as True, and pydantic calls that 1."""
    read = yaml.constructor.SafeConstructor().construct_object(key)
    return part in {key.value, read} or part == str(read)


def _duplicates(node: yaml.Node | None) -> Iterator[tuple[str, int]]:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                yield key.value, key.start_mark.line + 1
            seen.add(key.value)
            yield from _duplicates(value)
