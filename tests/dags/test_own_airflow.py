"""What docs/reference/airflow.md says, done in an Airflow of one's own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
OWN = {"name": "mine", "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle"}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An Airflow that has a bundle of its own already."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW_", "VAEWATCH_", "MLFLOW_"))}
    (tmp_path / "mine").mkdir()
    bundles = [OWN | {"kwargs": {"path": str(tmp_path / "mine")}}]
    return kept | {
        "PATH": f"{BIN}{os.pathsep}{kept['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
    }


def blocks(tmp_path: Path) -> list[str]:
    """The page's commands, with places of this test; vaewatch by its module, as nothing is installed."""
    page = (REPOSITORY / "docs" / "reference" / "airflow.md").read_text(encoding="utf-8")
    found = re.findall(r"^```\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    text = "\0".join(found).replace("/srv/vaewatch", str(tmp_path / "srv")).replace("/data", str(tmp_path))
    text = text.replace("vaewatch init", f"{sys.executable} -m pipeline.cli init")
    return re.sub(r"export MLFLOW_TRACKING_URI=.*\n", "", text).split("\0")


def test_the_bundle_is_added_once(environment: dict[str, str]) -> None:
    """Those that are there stay; saying it again changes nothing."""
    name = "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"
    for _ in range(2):
        command = [sys.executable, "-m", "dags"]
        environment[name] = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True
        ).stdout
        assert [bundle["name"] for bundle in json.loads(environment[name])] == ["mine", "vaewatch"]


def checked(environment: dict[str, str]) -> tuple[int, str]:
    """What the check says of an Airflow, in a line a part."""
    done = subprocess.run(
        [sys.executable, "-m", "dags", "check"], env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, " ".join(line for line in done.stdout.splitlines() if "[info" not in line)


def test_without_an_airflow_the_check_says_so_and_sets_none_up(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """It may be asked on any machine."""
    del environment["AIRFLOW_HOME"]
    code, said = checked(environment | {"HOME": str(tmp_path)})
    assert (code, "no Airflow is set up here" in said) == (0, True)
    assert not (tmp_path / "airflow").exists()


def test_the_check_says_what_airflow_lacks_and_what_makes_it_whole(environment: dict[str, str]) -> None:
    """A training that waits for a pool which nobody made waits for ever, without a word."""
    code, said = checked(environment)
    assert code == 1
    assert "mend DAG bundle: none of mine holds" in said
    assert "airflow db migrate" in said
    airflow = [sys.executable, "-m", "airflow"]
    subprocess.run([*airflow, "db", "migrate"], env=environment, capture_output=True, check=True)
    assert "mend pool gpu: it is missing" in checked(environment)[1]
    pool = ["pools", "set", "gpu", "2", "two"]
    subprocess.run([*airflow, *pool], env=environment, capture_output=True, check=True)
    listed = [sys.executable, "-m", "dags"]
    bundles = subprocess.run(listed, env=environment, capture_output=True, text=True, check=True).stdout
    code, said = checked(environment | {"AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": bundles})
    assert (code, "ok   DAG bundle: vaewatch" in said, "at once: 2" in said) == (0, True, True)


@pytest.mark.slow
def test_the_page_s_commands_give_unpaused_dags_and_a_pool(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """All but the installation, for which the tests' own stands; a file is read when Airflow is asked to."""
    (tmp_path / "payments").mkdir()
    rows = {"id": [str(i) for i in range(200)], "amount": [i % 17 / 3 for i in range(200)]}
    for day in ("2026-01-01", "2026-01-02"):
        pq.write_table(pa.table(rows), tmp_path / "payments" / f"{day}.parquet")
    install, tell, prepare, unpause = blocks(tmp_path)
    assert "requirements.lock" in install
    show = "airflow dags list --output json > dags.json\nairflow pools list --output json > pools.json"
    script = "\n".join([
        "set -e", tell, 'mkdir -p "$VAEWATCH_DATASETS"', "airflow db migrate", prepare,
        "airflow dags reserialize", unpause, show,
    ])  # fmt: skip
    done = subprocess.run(
        ["bash", "-c", script], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stdout + done.stderr
    dags = {one["dag_id"]: one["is_paused"] for one in read(tmp_path / "dags.json")}
    assert set(dags) >= {f"payments.{verb}" for verb in ("discover", "score", "train", "promote", "prune")}
    assert set(dags.values()) == {"False"}
    assert "gpu" in {one["pool"] for one in read(tmp_path / "pools.json")}


def read(file: Path) -> list[dict[str, str]]:
    """Airflow's answer; warnings may stand before it."""
    text = file.read_text(encoding="utf-8")
    answer: list[dict[str, str]] = json.loads(text[text.index("[{") :])
    return answer
