"""Reading a stranger's Parquet in a child process that may die without harm.

Belongs here: limits on memory and time, and what a file turned out to be: digest, rows, schema, periods. Does
not: whether it fits the contract (config/contracts.py). A file can ask for terabytes in 343 bytes or hang a
decoder; the parent only ever sees a report per file. Run as `python -P -m pipeline.incoming.guard` with a job
on standard input.
"""

from __future__ import annotations

import base64
import hashlib
import json
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.errors import CheckCrashed, StorageFailed, UnreadableFile

MEMORY_BYTES = 4 << 30
SECONDS_PER_FILE = 600
MAX_COLUMNS = 10_000
MAX_RECORDS = 1 << 32
SLICE = 16_384
STARTED = "reading"


@dataclass(frozen=True)
class FileReport:
    """What a file turned out to be.

    Attributes:
        digest: SHA-256 of the bytes.
        periods: records per period where a split was asked for; the key "" counts records without a time.
    """

    digest: str
    n_records: int
    schema: pa.Schema
    periods: dict[str, int] = field(default_factory=dict)


def inspect(
    files: Sequence[Path],
    *,
    columns: Sequence[str] | None,
    time: str | None = None,
    split: str | None = None,
    processes: int = 1,
    meanwhile: Callable[[], None] = lambda: None,
) -> list[FileReport]:
    """Digest and decode files completely, in child processes with limits.

    Args:
        processes: how many at once, each with its share of the files and with limits of its own.
        columns: which to decode; names that a file lacks are left to the contract. None decodes all that are
            not nested.
        time, split: column and unit ("hour", "day", "month") to count records by.
        meanwhile: called in this process while the others work.

    Raises:
        UnreadableFile: a file is not sound Parquet, or needs more memory or time than allowed; names it and
            why.
        StorageFailed: a file could not be opened: this says nothing about its content.
        CheckCrashed: no child process could be started.
    """
    n = max(1, min(processes, len(files)))
    parts = [files[i * len(files) // n : (i + 1) * len(files) // n] for i in range(n)]
    with ThreadPoolExecutor(n) as threads:
        found = threads.map(lambda part: survey(part, columns=columns, time=time, split=split), parts)
        meanwhile()
        return list(_sound(chain.from_iterable(found)))


def survey(
    files: Sequence[Path], *, columns: Sequence[str] | None, time: str | None = None, split: str | None = None
) -> list[FileReport | UnreadableFile]:
    """Report on files from a child process; a bad file's error stands in its place."""
    found: list[FileReport | UnreadableFile] = []
    while len(found) < len(files):
        job = {
            "files": [str(f) for f in files[len(found) :]],
            "columns": None if columns is None else list(columns),
            "time": time,
            "split": split,
            "memory_bytes": MEMORY_BYTES,
            "seconds": SECONDS_PER_FILE,
        }
        lines, ended = _run(job)
        found += [_accept(json.loads(line)) for line in lines]
        if len(found) < len(files):  # the child died on this file; a new child starts behind it
            found.append(UnreadableFile(f"{_printable(files[len(found)])}: {ended}; have it written again"))
    return found


def _sound(reports: Iterable[FileReport | UnreadableFile]) -> Iterator[FileReport]:
    for report in reports:
        if isinstance(report, UnreadableFile):
            raise report
        yield report


def _run(job: dict[str, Any]) -> tuple[list[str], str]:
    """Return the child's lines, one per file, and how it ended."""
    child = subprocess.run(
        # -P: a folder named pipeline in the working directory is not ours
        [sys.executable, "-P", "-m", "pipeline.incoming.guard"],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        check=False,
    )
    started, *lines = child.stdout.splitlines() or [""]
    last = child.stderr.strip().splitlines()[-1] if child.stderr.strip() else f"exit code {child.returncode}"
    if started != STARTED:
        raise CheckCrashed(
            f"the process that reads files could not be started ({last}); no file was looked at"
        )
    if child.returncode == -signal.SIGALRM:
        return lines, f"it was still being decoded after {SECONDS_PER_FILE:g} s"
    return lines, f"the process that decoded it died ({last})"


def _printable(file: Path) -> str:
    return file.name.encode("utf-8", "replace").decode()


def _accept(line: dict[str, Any]) -> FileReport | UnreadableFile:
    if line.get("missing"):
        raise StorageFailed(f"{_printable(Path(line['file']))}: {line['missing']}")
    if line.get("error"):
        return UnreadableFile(f"{_printable(Path(line['file']))}: {line['error']}")
    schema = pa.ipc.read_schema(pa.BufferReader(base64.b64decode(line["schema"])))
    return FileReport(line["digest"], line["n_records"], schema, line["periods"])


def _examine(path: Path, job: dict[str, Any]) -> dict[str, Any]:
    with path.open("rb") as stream:  # opened once, so that the digest is of what is decoded
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        size = stream.tell()
        if size == 0:
            return {"error": "the file is empty (0 bytes)"}
        stream.seek(0)
        head = stream.read(4)
        stream.seek(max(0, size - 4))
        if head != b"PAR1":
            return {"error": f"not a Parquet file: it starts with {head!r} instead of b'PAR1'"}
        if stream.read(4) != b"PAR1":
            return {"error": f"the file is cut short: {size:,} bytes and no Parquet footer"}
        return {"digest": digest, **_read(f"/dev/fd/{stream.fileno()}", job)}


def _read(path: str, job: dict[str, Any]) -> dict[str, Any]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, page_checksum_verification=True) as parquet:
        meta = parquet.metadata
        if meta.num_columns > MAX_COLUMNS or meta.num_rows > MAX_RECORDS:
            return {
                "error": f"it has {meta.num_columns:,} columns and {meta.num_rows:,} records; at most {MAX_COLUMNS:,} and {MAX_RECORDS:,} are read"
            }
        schema = parquet.schema_arrow.remove_metadata()
        flat = (field.name for field in schema if not pa.types.is_nested(field.type))
        chosen = flat if job["columns"] is None else job["columns"]
        wanted = [n for n in dict.fromkeys([*chosen, job["time"]]) if n in schema.names]
        n_records, periods = _decode(parquet.iter_batches(SLICE, columns=wanted), job)
        if n_records != meta.num_rows and wanted:
            return {"error": f"the footer says {meta.num_rows} records, the pages hold {n_records}"}
    encoded = base64.b64encode(schema.serialize().to_pybytes()).decode()
    return {"n_records": meta.num_rows, "schema": encoded, "periods": periods}


def _decode(slices: Iterator[pa.RecordBatch], job: dict[str, Any]) -> tuple[int, dict[str, int]]:
    import pyarrow.compute as pc

    n_records, periods = 0, dict[str, int]()
    for batch in slices:
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            try:
                column.validate(full=True)
                if pa.types.is_dictionary(column.type):
                    # later readers will decode it: a megabyte of text for each record must fail here
                    column.dictionary_decode()
            except pa.ArrowInvalid as fault:
                raise pa.ArrowInvalid(f"column {name!r}, after record {n_records}: {fault}") from fault
        if job["split"] and job["time"] in batch.schema.names and _is_time(batch.column(job["time"]).type):
            label = {"hour": "%Y-%m-%dT%H", "day": "%Y-%m-%d", "month": "%Y-%m"}[job["split"]]
            times = pc.cast(batch.column(job["time"]), pa.timestamp("us"), safe=False)
            # nulls stay nulls: fill_null would import pandas
            counts = pc.value_counts(pc.strftime(times, label))
            for entry in counts.to_pylist():
                period = entry["values"] or ""
                periods[period] = periods.get(period, 0) + entry["counts"]
        n_records += batch.num_rows
    return n_records, periods


def _is_time(type_: pa.DataType) -> bool:
    # the contract refuses any other type
    return bool(pa.types.is_timestamp(type_) or pa.types.is_date(type_))


def _main() -> None:
    job = json.load(sys.stdin)
    limit = job["memory_bytes"]
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    print(STARTED, flush=True)  # noqa: T201
    for file in job["files"]:
        signal.setitimer(signal.ITIMER_REAL, job["seconds"])  # ends this process even deep inside a decoder
        try:
            line = _examine(Path(file), job)
        except MemoryError:
            line = {"error": f"decoding it takes more than {limit / (1 << 30):.3g} GiB of memory"}
        except (OSError, pa.ArrowException, UnicodeDecodeError, ValueError, NotImplementedError) as fault:
            # the operating system's errors have a number; a decoder's are about the file
            kind = "missing" if isinstance(fault, OSError) and fault.errno else "error"
            line = {kind: " ".join(str(fault).split())[:500]}
        print(json.dumps({"file": file, **line}), flush=True)  # noqa: T201


if __name__ == "__main__":
    _main()
