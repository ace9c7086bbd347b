"""An installation in a folder of its own, with the sample feed: checked, trained and scored once, copied for
each test.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa

from pipeline import steps
from pipeline.config.settings import Settings
from pipeline.installation import Installation
from pipeline.sample import SamplePlan, SampleReceipt, generate
from pipeline.steps.receipts import Receipt

from .shop import Shop

REPOSITORY = Path(__file__).resolve().parents[2]
PLAN = SamplePlan(days=14, records_per_day=400)
TIMES = ("validated_at", "scored_at", "signature")  # differ from run to run, or from copy to copy
QUICK = "{steps: 60, n_members: 2}"


class Place:
    """One installation under a folder: its feed, its datasets, its home."""

    def __init__(self, root: Path, name: str = "payments") -> None:
        self.root, self.name = root, name
        self.yaml = root / "datasets" / f"{name}.yaml"
        self.incoming = root / "incoming" / name
        self.settings = Settings(
            home=root / "home",
            datasets=root / "datasets",
            ledger_url=None,
            tracking_uri=f"sqlite:///{root}/home/mlflow.db",
            threads=1,
        )
        self.opened: list[Installation] = []

    @property
    def here(self) -> Installation:
        """The installation, opened as a new process would."""
        self.opened.append(Installation(self.settings))
        return self.opened[-1]

    def with_settings(self, **changed: Any) -> Installation:
        self.opened.append(Installation(self.settings.model_copy(update=changed)))
        return self.opened[-1]

    def validate(self, key: str | None = None, **options: Any) -> Receipt:
        return steps.validate(self.here, self.name, key, **options)

    def train(self) -> Receipt:
        """Train; a first model serves at once, as what these tests train is too quick to pass any gate."""
        receipt = steps.train(self.here, self.name)
        if self.here.registry.champion(self.name) is None:
            steps.promote(
                self.here, self.name, receipt.model_version, by="ann", reason="the first", override=True
            )
            return replace(receipt, alias="champion")
        return receipt

    def score(self, key: str | None = None, **options: Any) -> Receipt:
        return steps.score(self.here, self.name, key, **options)

    def edit(self, old: str, new: str) -> None:
        """Change the dataset's file."""
        text = self.yaml.read_text(encoding="utf-8")
        assert old in text
        self.yaml.write_text(text.replace(old, new), encoding="utf-8")

    def copy(self, target: Path) -> Place:
        """Copy the installation. Models stay where they were registered: MLflow records whole addresses."""
        return Place(Path(shutil.copytree(self.root, target)), self.name)

    def close(self) -> None:
        for here in self.opened:
            here.close()

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a process of this installation."""
        theirs = {k: v for k, v in os.environ.items() if not k.startswith(("VAEWATCH_", "MLFLOW_"))}
        return theirs | {
            "VAEWATCH_HOME": str(self.settings.home),
            "VAEWATCH_DATASETS": str(self.settings.datasets),
            "VAEWATCH_THREADS": "1",
            "OMP_NUM_THREADS": "1",
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the command line, as a process that may be killed."""
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", *arguments],
            env=self.environment,
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run the command line to its end; return exit code, standard output, standard error."""
        process = self.start(*arguments)
        output, errors = process.communicate(timeout=300)
        return process.returncode, output, errors

    def table(self, name: str) -> pa.Table:
        """Return all rows of a Delta table, always in the same order."""
        here = self.here
        found = here.tables(here.dataset(self.name)).read(name)
        return found.select(sorted(found.column_names)).sort_by([
            ("batch_id", "ascending"),
            ("row_number", "ascending"),
        ])

    def versions(self) -> dict[str, int]:
        """Return how often each Delta table was written to."""
        from deltalake import DeltaTable

        here = self.here
        tables = here.tables(here.dataset(self.name))
        names = [name for name in ("records", "scores") if tables.exists(name)]
        return {name: DeltaTable(tables.uri(name)).version() for name in names}

    def ledger(self, *, times: bool = False) -> list[dict[str, Any]]:
        """Return the ledger's rows, the newest version of every batch."""
        rows = [asdict(state) for state in self.here.ledger.current(self.name).values()]
        return rows if times else [{k: v for k, v in row.items() if k not in TIMES} for row in rows]

    def models(self) -> dict[int, str]:
        """Return every model version with the digest of its detector."""
        return {v.version: v.tags["detector_digest"] for v in self.here.registry.versions(self.name)}

    def left_over(self) -> list[str]:
        """Return the scratch that a finished installation has no use for."""
        home = self.settings.home
        work = [path for path in (home / "work").rglob("*") if path.is_file() or path.suffix == ".tmp"]
        drafts = [path for path in home.rglob("*.draft") if path not in work]
        fetched = list((home / "models").glob("*/*.tmp"))
        return sorted(str(path.relative_to(home)) for path in [*work, *drafts, *fetched])


def unsync(connection: Any, _record: Any) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")


@pytest.fixture(scope="session", autouse=True)
def unsynced() -> Iterator[None]:
    """Tests kill processes, not machines: SQLite need not wait for the disk."""
    sa.event.listen(sa.Engine, "connect", unsync)
    yield
    sa.event.remove(sa.Engine, "connect", unsync)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("end to end")  # paths may have blanks


@pytest.fixture(scope="session")
def landed_once(shared: Path) -> tuple[Place, SampleReceipt]:
    """The feed has landed, nothing was done."""
    place = Place(shared / "landed")
    receipt = generate(place.root, PLAN)
    place.yaml.parent.mkdir()
    shutil.copy(REPOSITORY / "dags" / "datasets" / "payments.yaml", place.yaml)
    place.edit("../../var/incoming", "../incoming")
    place.edit("settle_seconds: 3", "settle_seconds: 0")
    place.edit("{n_latents: 10, steps: 3000, minibatch: 256}", QUICK)
    return place, receipt


@pytest.fixture(scope="session")
def validated_once(landed_once: tuple[Place, SampleReceipt], shared: Path) -> Place:
    """Every batch is checked."""
    return _done(landed_once[0].copy(shared / "validated"), "validate")


@pytest.fixture(scope="session")
def trained_once(validated_once: Place, shared: Path) -> Place:
    """A champion serves."""
    return _done(validated_once.copy(shared / "trained"), "train")


@pytest.fixture(scope="session")
def scored_once(trained_once: Place, shared: Path) -> Place:
    """Every accepted batch is scored."""
    return _done(trained_once.copy(shared / "scored"), "score")


def _done(place: Place, step: str) -> Place:
    getattr(place, step)()
    place.close()
    return place


@pytest.fixture(scope="session")
def sample(landed_once: tuple[Place, SampleReceipt]) -> SampleReceipt:
    """What the generator says about its feed."""
    return landed_once[1]


@pytest.fixture
def open_copy(tmp_path: Path) -> Iterator[Callable[[Place], Place]]:
    """A function that copies an installation, which the test may change; copies are closed afterwards."""
    opened: list[Place] = []

    def copy(place: Place) -> Place:
        opened.append(place.copy(tmp_path / f"copy {len(opened)}"))
        return opened[-1]

    yield copy
    for place in opened:
        place.close()


@pytest.fixture
def landed(landed_once: tuple[Place, SampleReceipt], open_copy: Callable[[Place], Place]) -> Place:
    return open_copy(landed_once[0])


@pytest.fixture
def validated(validated_once: Place, open_copy: Callable[[Place], Place]) -> Place:
    return open_copy(validated_once)


@pytest.fixture
def trained(trained_once: Place, open_copy: Callable[[Place], Place]) -> Place:
    return open_copy(trained_once)


@pytest.fixture
def scored(scored_once: Place, open_copy: Callable[[Place], Place]) -> Place:
    return open_copy(scored_once)


@pytest.fixture
def new_shop() -> Iterator[Callable[[Path], Shop]]:
    """A function that opens a shop in a folder; shops are closed afterwards."""
    opened: list[Place] = []

    def make(root: Path) -> Shop:
        opened.append(Place(root, "orders"))
        return Shop(opened[-1])

    yield make
    for place in opened:
        place.close()


@pytest.fixture
def shop(new_shop: Callable[[Path], Shop], tmp_path: Path) -> Shop:
    return new_shop(tmp_path)
