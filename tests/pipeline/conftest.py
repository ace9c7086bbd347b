"""What several files of tests need: a dataset made of a few settings, a ledger, and real data where it lies."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings

from pipeline.config import Dataset
from pipeline.ledger import Ledger

settings.register_profile(
    "pipeline", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("pipeline")


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., Dataset]:
    """A dataset whose batches land in tmp_path/incoming; settings given replace those of a plain one."""

    def make(**given: Any) -> Dataset:
        incoming = {"path": "incoming", "settle_seconds": 0} | given.pop("incoming", {})
        plain = {"dataset": "payments", "columns": {"amount": {"type": "float", "role": "numeric"}}}
        return Dataset.model_validate({**plain, **given, "incoming": incoming, "file": tmp_path / "it.yaml"})

    return make


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a PostgreSQL of our own, without the name of a database; made of Debian's package where it is there."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres")) or [shutil.which("postgres")]
    if found[-1] is None or importlib.util.find_spec("psycopg") is None:
        pytest.skip(
            "no PostgreSQL server, or no psycopg: `apt-get install postgresql`, `pip install psycopg[binary]`"
        )
    programs, folder = Path(found[-1]).parent, tmp_path_factory.mktemp("postgresql")
    as_server: list[str] = []
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        as_server = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        folder = Path(tempfile.mkdtemp(prefix="vaewatch-postgresql-"))
        shutil.chown(folder, "postgres", "postgres")
    data, options = folder / "data", f"-k {folder} -c listen_addresses= -c fsync=off -c max_connections=40"
    made = [programs / "initdb", "-D", data, "-U", "vaewatch", "--auth=trust", "--encoding=UTF8", "--no-sync"]
    subprocess.run([*as_server, *made], check=True, capture_output=True)
    control = [*as_server, programs / "pg_ctl", "-D", data, "-w"]
    subprocess.run([*control, "-o", options, "-l", folder / "log", "start"], check=True, capture_output=True)
    yield f"postgresql+psycopg://vaewatch@/{{name}}?host={folder}"
    subprocess.run([*control, "-m", "immediate", "stop"], check=True, capture_output=True)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of each kind that an installation may have."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'ledger.db'}"
        return
    address: str = request.getfixturevalue("postgresql")
    name = f"test_{uuid.uuid4().hex[:12]}"
    engine = sa.create_engine(address.format(name="postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    yield address.format(name=name)


@pytest.fixture
def store(database_url: str) -> Iterator[Ledger]:
    """An empty installation's database, of each kind."""
    opened = Ledger(database_url)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets, beside the project or where VAEWATCH_DATA points."""
    folder = Path(os.environ.get("VAEWATCH_DATA", Path(__file__).parents[3] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there; VAEWATCH_DATA may point to another copy of the real data")
    return folder


@pytest.fixture
def at_once() -> Callable[[str, str, Sequence[Sequence[str]]], list[str]]:
    """Run code in several processes from the same moment on; returns what each printed.

    Each has `args`; `prepare` runs first, and `act` when all are ready.
    """

    def run(prepare: str, act: str, arguments: Sequence[Sequence[str]]) -> list[str]:
        code = f"import sys; args = sys.argv[1:]\n{prepare}\nprint('ready', flush=True); sys.stdin.readline()\n{act}"
        started = [
            subprocess.Popen([sys.executable, "-c", code, *args], stdin=PIPE, stdout=PIPE, text=True)
            for args in arguments
        ]
        for process in started:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
        for process in started:
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()
        return [process.communicate()[0].strip() for process in started]

    return run
