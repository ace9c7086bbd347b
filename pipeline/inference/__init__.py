"""A dataset file written from a sample: what `vaewatch init` guesses, and why.

Belongs here: choosing and reading the sample, and the proposal as a whole. Does not: what the settings mean
(config/dataset.py).
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from pipeline import sql
from pipeline.config.columns import Column
from pipeline.config.contracts import contract_type, fits, reserved, typed
from pipeline.config.dataset import NAME
from pipeline.errors import ConfigError, UnreadableFile
from pipeline.incoming import guard
from pipeline.incoming.batches import path_shape, unlike_the_others
from pipeline.inference.guesses import FILE, guess
from pipeline.inference.shapes import files_a_day, parquet_files, shape_of
from pipeline.inference.writing import Sample, written

if TYPE_CHECKING:
    import duckdb

MOST_FILES = 12


@dataclass(frozen=True)
class Proposal:
    """A dataset file and what a person should look at before using it.

    Attributes:
        looked_at: how much of the folder was looked at.
    """

    text: str
    warnings: tuple[str, ...]
    looked_at: Sample


def default_name(folder: Path) -> str:
    """Return a dataset's name from its folder, or from the one above where the folder's name is generic."""
    named = folder.parent.name if folder.name in {"batches", "data", "incoming"} else folder.name
    plain = re.sub("[^A-Za-z0-9_-]+", "-", named).strip("-_")
    return (plain if plain[:1].isalpha() else f"dataset-{plain}".strip("-"))[:63]


def propose(folder: Path, name: str, *, relative_to: Path, threads: int, scratch: Path) -> Proposal:
    """Infer a dataset file from the Parquet files under a folder.

    Args:
        relative_to: folder that the YAML file will lie in.

    Raises:
        ConfigError: the name is not valid for a dataset; or there is no Parquet file, none that can be read,
            or no column that can be modelled.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} is not a valid dataset name: it needs a letter, then letters, digits, - and _, at most 63 in all; choose another --name"
        )
    paths = parquet_files(folder)
    relative = [str(path.relative_to(folder)) for path in paths]
    shape = shape_of(relative)
    read = {
        path: found["batch_id"] for path in relative if (found := path_shape(shape.files).fullmatch(path))
    }
    paths = [path for path, name_of in zip(paths, relative, strict=True) if name_of in read]
    chosen = [paths[round(i * (len(paths) - 1) / (MOST_FILES - 1))] for i in range(MOST_FILES)]
    sample, schemas, warnings, n_records = _readable(list(dict.fromkeys(chosen)))
    warnings += _never_read(folder, shape.files, [path for path in relative if path not in read])
    warnings += unlike_the_others(list(read.values())).values()
    types = _types(schemas)
    _check_names(folder, types)
    with sql.database(scratch, threads=threads) as connection:
        _load(connection, sample, types, scratch)
        guesses = guess(connection, types, len(sample), long_files=shape.monthly)
    warnings += [f"{g.name}: {g.warning}" for g in guesses.columns if g.warning]
    if not guesses.levels and not any(g.role in {"numeric", "categorical"} for g in guesses.columns):
        raise ConfigError(f"{folder}: no column can be modelled (all are identifiers, text or constant)")
    looked_at = Sample(len(paths), len(sample), n_records)
    a_day = files_a_day(shape.files, list(read))
    text = written(name, _path(folder, relative_to), shape, guesses, looked_at, a_day)
    return Proposal(text, tuple(warnings), looked_at)


def _never_read(folder: Path, files: str, unmatched: Sequence[str]) -> Iterator[str]:
    """Say which files do not match the pattern, and how another folder gets a dataset of its own."""
    if not unmatched:
        return
    do, named = ("1 file does", ":") if len(unmatched) == 1 else (f"{len(unmatched)} files do", ", such as")
    said = f"{do} not match {files} and will never be read{named} {unmatched[0]}"
    mine = files.partition("/")[0]
    others = sorted({path.partition("/")[0] for path in unmatched if "/" in path} - {mine})
    if others and "{" not in mine:
        more = f", and so on for {', '.join(others[1:3])}" if others[1:] else ""
        said += (
            f"; a folder of other records is a dataset of its own: vaewatch init {folder / others[0]}{more}"
        )
    yield said


def _path(folder: Path, relative_to: Path) -> str:
    """Return a relative path for a folder nearby, which moves along with the file; else an absolute one."""
    near = os.path.relpath(folder, relative_to)
    return str(folder.absolute()) if near.startswith("../../../") else near


def _readable(paths: Sequence[Path]) -> tuple[list[Path], list[pa.Schema], list[str], int]:
    sample, schemas, warnings, n_records = [], [], [], 0
    for path, report in zip(paths, guard.survey(paths, columns=None), strict=True):
        if isinstance(report, UnreadableFile):
            warnings.append(f"left out of the sample: {report}")
        elif report.n_records:
            sample.append(path)
            schemas.append(report.schema)
            n_records += report.n_records
    if not sample:
        raise ConfigError("no sampled file has records that can be read:\n  " + "\n  ".join(warnings))
    return sample, schemas, warnings, n_records


def _types(schemas: Sequence[pa.Schema]) -> dict[str, str]:
    """Return, by column of the newest file, a contract type that every sampled file fits, or `other`."""
    types = {}
    for name in schemas[-1].names:
        fields = [schema.field(name).type for schema in schemas if schema.get_field_index(name) >= 0]
        found = dict.fromkeys(contract_type(type_) for type_ in fields if not pa.types.is_null(type_))
        candidates = [Column(type=type_) for type_ in [*found, "float"] if name]
        fitting = (column.type for column in candidates if all(fits(column, type_) for type_ in fields))
        types[name] = next(fitting, "other")
    return types


def _check_names(folder: Path, names: Iterable[str]) -> None:
    if taken := reserved(names):
        raise ConfigError(
            f"{folder}: columns {', '.join(taken)} have names that vaewatch uses itself; rename them"
        )
    folded = Counter(name.casefold() for name in names)
    twice = [name for name in names if folded[name.casefold()] > 1]
    if twice:
        raise ConfigError(
            f"{folder}: columns {', '.join(twice)} differ in case only, which tables cannot hold; rename them"
        )


def _load(
    connection: duckdb.DuckDBPyConnection, sample: list[Path], types: dict[str, str], scratch: Path
) -> None:
    scratch.mkdir(parents=True, exist_ok=True)
    views = []
    for i, path in enumerate(sample):
        link = scratch / f"sample{i}.parquet"
        link.unlink(missing_ok=True)
        link.symlink_to(path.absolute())
        views.append(str(link))
    kept = [f"{typed(n, Column(type=t))} AS {sql.name(n)}" for n, t in types.items() if t != "other"]
    query = f"""SELECT {", ".join([*kept, FILE])} FROM read_parquet([{", ".join(map(sql.text, views))}],
        union_by_name = true, hive_partitioning = false, filename = {sql.text(FILE.strip('"'))})"""
    connection.execute(
        f"CREATE TABLE sample AS SELECT * FROM ({query}) USING SAMPLE reservoir(500000 ROWS) REPEATABLE (7)"
    )
