"""What several files of tests need: a dataset made of a few settings, a ledger, and real data where it lies."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
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
