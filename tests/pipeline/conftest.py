"""Fixtures for several test files: a dataset made of a few settings, a ledger, and real data if present."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from subprocess import PIPE
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings

from pipeline.config.dataset import Dataset
from pipeline.config.files import load_dataset
from pipeline.config.settings import Settings
from pipeline.inference import propose
from pipeline.installation import Installation
from pipeline.registry import DatasetInput, Registry, TrainingRun
from pipeline.storage.ledger import Ledger

from .inference_data import Guessed
from .postgresql import missing, server
from .registry_data import CONTRACT, ELSEWHERE, finish, orders, start, tracking_uri
from .review_data import DATASET, SITE, TOKEN, put, row

if TYPE_CHECKING:
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

settings.register_profile(
    "pipeline", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("pipeline")


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., Dataset]:
    """A function that makes a dataset with these settings; its batches land in tmp_path/incoming."""

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
def postgresql() -> Iterator[str]:
    """The address of a PostgreSQL server of our own, with a place for the database's name."""
    if why_not := missing():
        pytest.skip(why_not)
    with server("fsync=off") as address:
        yield address


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of each kind that an installation may have."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'ledger.db'}"
        return
    place: str = request.getfixturevalue("postgresql")
    name = f"test_{uuid.uuid4().hex[:12]}"
    _execute(place, f"CREATE DATABASE {name}")
    yield place.format(name=name)


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


@pytest.fixture(scope="session", autouse=True)
def unsynced() -> Iterator[None]:
    """Tests kill processes, not machines: SQLite need not wait for the disk."""

    sa.event.listen(sa.Engine, "connect", unsync)
    yield
    sa.event.remove(sa.Engine, "connect", unsync)


def unsync(connection: Any, _record: Any) -> None:
    if isinstance(connection, sqlite3.Connection):  # the listener hears every engine of this process
        connection.execute("PRAGMA synchronous = OFF")


@pytest.fixture(scope="session")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real detector's folder."""
    from pipeline.detection.detector import Detector

    dataset = Dataset.model_validate(CONTRACT)
    folder = tmp_path_factory.mktemp("detector")
    Detector.train(dataset, orders(200, 1), orders(50, 2), records_per_day=50, device="cpu").save(folder)
    return folder


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with MLflow's empty database, made by two processes at once."""
    folder = tmp_path_factory.mktemp("prepared")
    other = start(f"""
        from pipeline.registry import Registry
        Registry("sqlite:///{folder}/mlflow.db").prepare()
        """)
    Registry(f"sqlite:///{folder}/mlflow.db").prepare()
    assert finish(other) == 0
    return folder


@pytest.fixture(scope="session")
def prepared_server(postgresql: str) -> str:
    """The same on PostgreSQL: the address of a server whose database can be copied, as nobody uses it."""
    _execute(postgresql, "CREATE DATABASE mlflow_prepared")
    made = start(f"""
        from pipeline.registry import Registry
        Registry({postgresql.format(name="mlflow_prepared")!r}, "file:///nowhere").prepare()
        """)
    assert finish(made) == 0
    return postgresql


def _execute(place: str, statement: str) -> None:
    engine = sa.create_engine(place.format(name="postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A fresh installation on each kind of database; its path has a blank, as people's paths do."""
    folder = tmp_path / "home of vaewatch"
    if request.param == "sqlite":
        yield Path(shutil.copytree(request.getfixturevalue("prepared"), folder))
        return
    place, name = request.getfixturevalue("prepared_server"), f"mlflow_{uuid.uuid4().hex[:12]}"
    _execute(place, f"CREATE DATABASE {name} TEMPLATE mlflow_prepared")
    folder.mkdir()
    (folder / ELSEWHERE).write_text(place.format(name=name))
    yield folder
    _execute(place, f"DROP DATABASE {name} WITH (FORCE)")  # MLflow keeps its connections


@pytest.fixture
def registry(home: Path) -> Registry:
    return Registry(tracking_uri(home), home / "mlartifacts")


@pytest.fixture
def training(detector: Path, tmp_path: Path) -> TrainingRun:
    plot = tmp_path / "plot.html"
    plot.write_text("<p>loss</p>")
    return TrainingRun(
        dataset="orders",
        training_key="a1" * 16,
        detector=detector,
        input_example=orders(5, 3),
        params={"steps": 3, "device": None},
        metrics={"elbo": -6.5},
        curves=[(0, {"loss": 2.0}), (1, {"loss": 1.0})],
        inputs=[DatasetInput("records", "s3://key:s3cret@lake/orders", "f" * 64, 200, "training")],
        tags={"contract_hash": "c0ffee"},
        plots={"loss by step": plot},
    )


@pytest.fixture
def at_once() -> Callable[[str, str, Sequence[Sequence[str]]], list[str]]:
    """A function that runs code in several processes from the same moment on; it returns what each printed.

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


@pytest.fixture
def payments_yaml() -> str:
    """The dataset's file; a module that needs another one overrides this fixture."""
    return DATASET


@pytest.fixture
def here(tmp_path: Path, payments_yaml: str) -> Iterator[Installation]:
    """An installation with a dataset that has not been scored, in a folder whose name has a space."""
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "payments.yaml").write_text(payments_yaml)
    installation = Installation(Settings(home=tmp_path / "my home", datasets=tmp_path / "datasets"))
    yield installation
    installation.close()


@pytest.fixture
def ids(here: Installation) -> list[str]:
    """Five records of one signature, the most severe first."""
    rows = [row(f"k{i}", severity=9.0 - i) for i in range(5)]
    put(here.ledger, rows)
    return [one["anomaly_id"] for one in rows]


@pytest.fixture
def app(here: Installation) -> FastAPI:
    """The review page alone, for ann."""
    from pipeline.web.alone import alone

    return alone(here, "ann", TOKEN, hosts=["localhost"])


@pytest.fixture
def browser(app: FastAPI) -> TestClient:
    """A browser that opened the address once."""
    from fastapi.testclient import TestClient

    client = TestClient(app, base_url=SITE, headers={"sec-fetch-site": "same-origin"})
    assert client.get("/", params={"token": TOKEN}).status_code == 200
    return client


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs a verb of review and reads its JSON; of one that fails, the error."""
    from typer.testing import CliRunner

    from pipeline.cli import app

    (tmp_path / "payments.yaml").write_text(DATASET)
    monkeypatch.setenv("VAEWATCH_HOME", str(tmp_path))
    monkeypatch.setenv("VAEWATCH_DATASETS", str(tmp_path))

    def run(*arguments: str) -> Any:
        done = CliRunner().invoke(app, ["review", *arguments, "--json"])
        return json.loads(done.stdout) if done.exit_code == 0 else done.exception

    return run


@pytest.fixture
def guess(tmp_path: Path) -> Callable[..., Guessed]:
    """Write tables under a folder, propose a dataset file for it, and load that file."""

    def made(files: dict[str, dict[str, Any]] | Path, name: str = "payments") -> Guessed:
        folder = files if isinstance(files, Path) else tmp_path / "incoming data"
        for path, columns in files.items() if isinstance(files, dict) else ():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table(columns), folder / path)
        (datasets := tmp_path / "datasets").mkdir()
        proposal = propose(
            folder, name, relative_to=datasets, threads=2, scratch=tmp_path / "o'brien's" / "env=prod"
        )
        (file := datasets / "it.yaml").write_text(proposal.text, encoding="utf-8")
        dataset = load_dataset(file)
        assert dataset.name == name
        assert dataset.incoming_path == folder.resolve()
        return Guessed(proposal, dataset)

    return made
