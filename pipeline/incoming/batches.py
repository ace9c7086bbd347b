"""What has landed: which files make up which batch, and whether they are still being written.

Belongs here: paths, batch ids, signatures and fingerprints. Does not: what is in a file (guard.py), what was
done with a batch (storage/ledger.py), or whether it is fit to score (validation.py).
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import stat
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from pipeline.config.dataset import Dataset
from pipeline.errors import ConfigError, StorageFailed, UnreadableFile
from pipeline.incoming import guard
from pipeline.storage.ledger import BatchState, Ledger

BATCH_ID = re.compile(r"[A-Za-z0-9_-]{1,120}")
UNFINISHED = (".tmp", ".part", ".partial", ".inprogress", ".crc", ".filepart")
UNDATED = "undated"
MOST_ALIKE = 0.9  # share of names of one form, from which on another form is remarkable
DATE = re.compile(r"(?<!\d)((?:19|20)\d{2})(?:-?(0[1-9]|1[0-2])(?:-?(0[1-9]|[12]\d|3[01]))?)?(?!\d)")


@dataclass(frozen=True)
class LandedFile:
    """A file as the folder shows it."""

    path: Path
    relative: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class LandedBatch:
    """A delivery: its stable key and its files.

    Attributes:
        period: where a delivery is split by time, the period of this batch; "" for records outside the
            delivery's own.
        delivery: what {batch_id} matched in the path.
        inside: with period "", the periods that other batches of the delivery hold.
    """

    batch_id: str
    files: tuple[LandedFile, ...]
    delivery: str
    period: str | None = None
    inside: tuple[str, ...] = field(default=())

    @property
    def signature(self) -> str:
        """Changes when a file is touched or the split differs: cheap, and says nothing about the content."""
        seen = [f"{f.relative}|{f.size}|{f.mtime_ns}" for f in self.files]
        return _digest(seen if self.period is None else [*seen, self.period])

    def fingerprint(self, digests: Iterable[str]) -> str:
        """Identify the content: the result changes if, and only if, a byte, a name or the period does."""
        named = zip((f.relative for f in self.files), digests, strict=True)
        return _digest([*(f"{name}|{digest}" for name, digest in named), self.period or ""])


def landed(dataset: Dataset, ledger: Ledger) -> list[LandedBatch]:
    """Return every settled batch in the dataset's folder, oldest first by name.

    A batch with any file touched within `settle_seconds` is left for the next look.

    Raises:
        StorageFailed: the folder is not there or cannot be listed.
        ConfigError: two deliveries would share a batch_id, and each would replace the other.
    """
    deliveries: dict[str, list[LandedFile]] = {}
    for file, delivery in _listed(dataset):
        deliveries.setdefault(delivery, []).append(file)
    settled_before = time.time_ns() - int(dataset.incoming.settle_seconds * 1e9)
    found: list[LandedBatch] = []
    for delivery, files in sorted(deliveries.items()):
        if max(f.mtime_ns for f in files) <= settled_before:
            batch = LandedBatch(safe_id(delivery), tuple(sorted(files, key=lambda f: f.relative)), delivery)
            found += _split(dataset, batch, ledger) if dataset.incoming.split else [batch]
    _check_distinct(dataset, found)
    return found


def no_delivery_yet(dataset: Dataset, ledger: Ledger) -> str:
    """Say so where nothing ever landed and the folder is not there; empty where there is one to look into.

    A dataset's file may come first: the folder of the demo's is made by the demo.
    """
    root = dataset.incoming_path
    return "" if root.exists() or ledger.current(dataset.name) else f"no delivery yet: {root} is not there"


@dataclass(frozen=True)
class Unsettled:
    """Files that changed too recently to be read: they may still be being written.

    Attributes:
        within: seconds for which a file is left alone after a change.
        settled_in: whole seconds until the last of them may be read.
    """

    n_files: int
    within: float
    settled_in: int

    @property
    def files(self) -> str:
        return "1 file" if self.n_files == 1 else f"{self.n_files} files"

    @property
    def words(self) -> str:
        were = "was" if self.n_files == 1 else "were"
        return (
            f"{self.files} {were} changed less than {self.within:g} s ago and may still be written; "
            f"run again in {self.settled_in} s"
        )


def unsettled(dataset: Dataset) -> Unsettled | None:
    """Return the files that were changed within `settle_seconds`, or None."""
    within, now = dataset.incoming.settle_seconds, time.time_ns()
    ages = [(now - file.mtime_ns) / 1e9 for file, _ in _listed(dataset)]
    young = [age for age in ages if age < within]
    return Unsettled(len(young), within, math.ceil(within - min(young))) if young else None


def _check_distinct(dataset: Dataset, found: Iterable[LandedBatch]) -> None:
    deliveries: dict[str, str] = {}
    for batch in found:
        other = deliveries.setdefault(batch.batch_id, batch.delivery)
        if other != batch.delivery:
            raise ConfigError(
                f"{dataset.name}: {other!r} and {batch.delivery!r} would both be batch {batch.batch_id!r}; "
                f"rename one, or mend incoming.files ({dataset.incoming.files})"
            )


def safe_id(text: str) -> str:
    """Return a batch_id for any text: plain text is kept, other text is made plain and gets a digest.

    Hive partitions are named by their values: year=2026/month=01/day=31 is 2026-01-31.
    """
    return _plain(_values(text))


def _values(text: str) -> str:
    parts = text.split("/")
    return "-".join(part.partition("=")[2] for part in parts) if all("=" in p for p in parts) else text


def _plain(text: str) -> str:
    if BATCH_ID.fullmatch(text):
        return text
    return f"{re.sub('[^A-Za-z0-9_-]+', '-', text)[:100].strip('-')}-{_digest([text])[:8]}"


def _listed(dataset: Dataset) -> Iterable[tuple[LandedFile, str]]:
    root = dataset.incoming_path
    if not root.is_dir():
        raise StorageFailed(
            f"{dataset.name}: incoming folder {root} is not there; create it or mend incoming.path"
        )
    shape = path_shape(dataset.incoming.files)
    for folder, folders, names in os.walk(root, onerror=_cannot_list):
        folders[:] = [f for f in folders if not f.startswith((".", "_"))]
        for name in names:
            relative = os.path.relpath(os.path.join(folder, name), root)  # noqa: PTH118
            match = shape.fullmatch(relative)
            if match and not name.startswith((".", "_")) and not name.endswith(UNFINISHED):
                path = Path(folder, name)
                try:
                    seen = path.stat()
                except FileNotFoundError:
                    continue  # renamed or removed since it was listed: the next look sees it
                if stat.S_ISREG(seen.st_mode):
                    yield LandedFile(path, relative, seen.st_size, seen.st_mtime_ns), match["batch_id"]


def _cannot_list(fault: OSError) -> None:
    if isinstance(fault, FileNotFoundError):
        return  # removed since the folder above was listed: the next look sees it
    raise StorageFailed(f"cannot list {fault.filename}: {fault.strerror}") from fault


def path_shape(files: str) -> re.Pattern[str]:
    """Return the pattern of a path under the folder, with the group batch_id."""
    parts = re.split(r"(\{batch_id\}|\*\*/|\*)", files)
    folders = "{batch_id}/" in files  # hive partitions nest: year=2026/month=01/day=31
    meaning = {"{batch_id}": f"(?P<batch_id>{'.' if folders else '[^/]'}+?)", "**/": "(?:.*/)?", "*": "[^/]*"}
    return re.compile("".join(meaning.get(part, re.escape(part)) for part in parts))


def _split(dataset: Dataset, batch: LandedBatch, ledger: Ledger) -> list[LandedBatch]:
    """Cut a delivery into one batch per period; records outside the period in its name share one batch."""
    counts: dict[str, int] = {}
    for periods in _periods(dataset, batch, ledger):
        for period, n_records in periods.items():
            counts[period] = counts.get(period, 0) + n_records
    if not counts:
        return [batch]  # unreadable or empty: validation refuses it whole, with the reason
    before, own, after = _around_date(_values(batch.delivery))
    inside = tuple(sorted(p for p in counts if p and p.startswith(own)))
    if not inside:  # the digits in its name are no date
        before, after = f"{_values(batch.delivery)}_", ""
        inside = tuple(sorted(p for p in counts if p))
    cut = [LandedBatch(_plain(before + p + after), batch.files, batch.delivery, p) for p in inside]
    if len(inside) < len(counts):
        undated = _plain(f"{batch.batch_id}_{UNDATED}")
        cut.append(LandedBatch(undated, batch.files, batch.delivery, "", inside))
    return cut


def unlike_the_others(batch_ids: Sequence[str]) -> dict[str, str]:
    """Say of each batch whose name has another form than nearly all have that it has; digits are alike.

    Nothing is said where fewer than ten names are known, or no form is that of nearly all.
    """
    forms = {batch_id: _form(batch_id) for batch_id in batch_ids}
    counted = Counter(forms.values()).most_common(1)
    if not counted or counted[0][1] < max(MOST_ALIKE * len(forms), 9):
        return {}
    usual = counted[0][0]
    like = max(batch_id for batch_id, form in forms.items() if form == usual)
    odd = [batch_id for batch_id, form in forms.items() if form != usual]
    return {one: f"{one} is not named like the other batches, such as {like}: is it one?" for one in odd}


def _form(batch_id: str) -> str:
    return re.sub(r"\d+", "0", batch_id)


def named_day(batch_id: str, *, whole: bool = True) -> date | None:
    """Return the first date in a batch's name, or None.

    whole: pass over a year or a month; else it stands for its first day.
    """
    for found in DATE.finditer(batch_id):
        with suppress(ValueError):  # the 31st of a month without one
            if found[3] or not whole:
                return date(*(int(part or 1) for part in found.groups()))
    return None


def gone(dataset: Dataset, states: Iterable[BatchState]) -> list[BatchState]:
    """Return accepted batches whose files are no longer in the folder.

    Raises:
        StorageFailed: the folder cannot be listed.
    """
    there = {file.relative for file, _ in _listed(dataset)}
    return [one for one in states if one.status != "refused" and there.isdisjoint(one.files)]


def is_undated(batch_id: str) -> bool:
    """Return whether a batch holds what a split delivery has outside its period; none of it is accepted."""
    return batch_id.endswith(f"_{UNDATED}")


def _around_date(text: str) -> tuple[str, str, str]:
    """Return what precedes the first date in a name, that date as periods begin, and what follows it."""
    match = DATE.search(text)
    if match is None:
        return f"{text}_", "", ""
    return text[: match.start()], "-".join(part for part in match.groups() if part), text[match.end() :]


def _periods(dataset: Dataset, batch: LandedBatch, ledger: Ledger) -> list[Mapping[str, int]]:
    question = _digest([batch.signature, str(dataset.incoming.split), str(dataset.time)])
    known = ledger.known_periods(dataset.name, question)
    if known is None:
        known = _count_periods(dataset, batch)
        ledger.remember_periods(dataset.name, question, known)
    return list(known)


def _count_periods(dataset: Dataset, batch: LandedBatch) -> list[dict[str, int]]:
    try:
        reports = guard.inspect(
            [f.path for f in batch.files],
            columns=[c for c in [dataset.time] if c],
            time=dataset.time,
            split=dataset.incoming.split,
        )
    except UnreadableFile:
        return []
    return [report.periods for report in reports]


def _digest(parts: Iterable[str]) -> str:
    # a file's name may be any bytes; those that are not UTF-8 are kept as Python hands them over
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()
