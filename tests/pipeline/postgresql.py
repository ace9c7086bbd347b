"""A PostgreSQL server of our own, for as long as a test or a benchmark needs it: Debian's package, a folder,
a socket.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def _program() -> Path | None:
    found = [*map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))), shutil.which("postgres")]
    return next((Path(path) for path in reversed(found) if path), None)


def missing() -> str:
    """What is not here, and how to get it; empty where all is."""
    if _program() is None or importlib.util.find_spec("psycopg") is None:
        return (
            "no PostgreSQL server, or no psycopg: `apt-get install postgresql`, `pip install psycopg[binary]`"
        )
    return ""


@contextmanager
def server(*settings: str) -> Iterator[str]:
    """Address of a server that listens on a socket only, without the name of a database; `{name}` stands in
    its place.
    """
    program = _program()
    assert program, missing()
    programs, folder = program.parent, Path(tempfile.mkdtemp(prefix="vaewatch-postgresql-"))
    as_server: list[str] = []
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        as_server = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        shutil.chown(folder, "postgres", "postgres")
    data = folder / "data"
    options = " ".join([
        f"-k {folder} -c listen_addresses= -c max_connections=40",
        *(f"-c {one}" for one in settings),
    ])
    made = [programs / "initdb", "-D", data, "-U", "vaewatch", "--auth=trust", "--encoding=UTF8", "--no-sync"]
    subprocess.run([*as_server, *made], check=True, capture_output=True)
    control = [*as_server, programs / "pg_ctl", "-D", data, "-w"]
    try:
        subprocess.run(
            [*control, "-o", options, "-l", folder / "log", "start"], check=True, capture_output=True
        )
        yield f"postgresql+psycopg://vaewatch@/{{name}}?host={folder}"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=False, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)
