"""Airflow in a folder of its own, set before anything imports it; datasets and homes made for each test."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

AIRFLOW_WARNINGS = [  # Airflow's own, on code paths that we cannot avoid
    pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning"),  # reading .airflowignore
]
AIRFLOW_HOME = Path(tempfile.mkdtemp(prefix="vaewatch-airflow-"))
REPOSITORY = Path(__file__).resolve().parents[2]

for variable in [name for name in os.environ if name.startswith(("AIRFLOW_", "_AIRFLOW_"))]:
    del os.environ[variable]
os.environ |= {
    "AIRFLOW_HOME": str(AIRFLOW_HOME),
    "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{AIRFLOW_HOME / 'airflow.db'}",
}

COLUMNS = """\
key: [id]
time: at
columns:
  id: {type: string, required: true, pattern: "[0-9]+-[0-9]+"}
  at: {type: timestamp_utc}
  a: {type: float, role: numeric, required: true}
  b: {type: float, role: numeric, required: true}
  c: {type: string, role: categorical, values: [x, y, z]}
"""

DatasetFile = Callable[..., Path]


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation with no dataset yet: its folder of dataset files."""
    folder = tmp_path / "datasets"
    folder.mkdir()
    monkeypatch.setenv("VAEWATCH_DATASETS", str(folder))
    monkeypatch.setenv("VAEWATCH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder


@pytest.fixture
def dataset_file(datasets: Path, tmp_path: Path) -> DatasetFile:
    """A function that writes a dataset's file: its name, and any text to stand before the columns."""

    def write(name: str, settings: str = "") -> Path:
        incoming = tmp_path / "incoming" / name
        incoming.mkdir(parents=True, exist_ok=True)
        path = datasets / f"{name}.yaml"
        path.write_text(
            f"dataset: {name}\nincoming: {{path: {incoming}, settle_seconds: 0}}\n{settings}\n{COLUMNS}",
            encoding="utf-8",
        )
        return path

    return write
