"""How the paths below a folder name batches, e.g. day={batch_id}/*.parquet.

Belongs here: which files are Parquet, and the pattern that fits them. Does not: what is in them (guesses.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.dataset import refuse_unreadable
from pipeline.errors import ConfigError
from pipeline.incoming.batches import DATE, UNFINISHED, path_shape

MOST_SHAPES = 20
ENOUGH_PATHS = 0.9


@dataclass(frozen=True)
class Shape:
    """A pattern of paths, and why this one."""

    files: str
    why: str
    monthly: bool = False


def parquet_files(folder: Path) -> list[Path]:
    try:
        refuse_unreadable(str(folder))
    except ValueError as fault:
        raise ConfigError(str(fault)) from fault
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder")
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)
        and not path.name.endswith(UNFINISHED)
    )
    parquet = [path for path in found if path.suffix in {".parquet", ".pq", ".parq"}]
    if not parquet:
        raise ConfigError(f"{folder} holds no Parquet file (*.parquet) yet; put a sample there and try again")
    return parquet


def shape_of(relative: Sequence[str]) -> Shape:
    """Return how these paths name a batch: the commonest pattern that fits nearly all, else most, of them."""
    common = [Shape(*found) for found, _ in Counter(map(_one_shape, relative)).most_common(MOST_SHAPES)]
    shapes = [*common, Shape(f"{{batch_id}}{Path(relative[0]).suffix}", "one batch a file")]
    matched = [sum(path_shape(s.files).fullmatch(path) is not None for path in relative) for s in shapes]
    enough = [s for s, n in zip(shapes, matched, strict=True) if n >= ENOUGH_PATHS * len(relative)]
    return enough[0] if enough else shapes[matched.index(max(matched))]


def files_a_day(files: str, relative: Sequence[str]) -> tuple[float, str]:
    """Return how many paths make a day, or a batch where batch names give no day, and which of the two."""
    batches = [found["batch_id"] for path in relative if (found := path_shape(files).fullmatch(path))]
    dates = [next((date[0] for date in DATE.finditer(batch) if date[3]), "") for batch in batches]
    unit, counted = ("day", dates) if all(dates) else ("batch", batches)
    return len(counted) / max(1, len(set(counted))), unit


def _one_shape(path: str) -> tuple[str, str, bool]:
    *folders, name = path.split("/")
    suffix = Path(name).suffix
    if folders and all("=" in part for part in folders):
        shared = f"{folders[0].partition('=')[0]}=" if len(folders) == 1 else ""
        return f"{shared}{{batch_id}}/*{suffix}", "hive partitions: one batch a partition", False
    dates = [match for match in DATE.finditer(name) if match[2]]
    if folders and (len(dates) != 1 or any(DATE.search(folder) for folder in folders)):
        return f"{{batch_id}}/*{suffix}", "one batch a folder", False
    if len(dates) == 1:
        monthly = dates[0][3] is None
        return (
            f"{'/'.join([*folders, name[: dates[0].start()]])}{{batch_id}}{name[dates[0].end() :]}",
            f"one file a {'month' if monthly else 'day'}, by its name",
            monthly,
        )
    return f"{{batch_id}}{suffix}", "one batch a file", False
