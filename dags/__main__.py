"""`python -m dags`: Airflow's list of DAG bundles as it is configured, with vaewatch's own added.
`python -m dags check`: whether this Airflow has what vaewatch needs of it.

Belongs here: that one value, and the command line. Does not: the DAGs (vaewatch.py), or what is checked
(check.py).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

NAME = "vaewatch"
SET_UP = ("AIRFLOW_HOME", "AIRFLOW_CONFIG", "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN")


def main() -> int:
    """Print the list, or the findings; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m dags", description=__doc__)
    parser.add_argument("verb", nargs="?", choices=["check"])
    return _check() if parser.parse_args().verb else _list()


def _list() -> int:
    from airflow.sdk.configuration import conf

    bundles = conf.getjson("dag_processor", "dag_bundle_config_list")
    others = [bundle for bundle in bundles if bundle["name"] != NAME]
    ours = {
        "name": NAME,
        "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
        "kwargs": {"path": str(Path(__file__).parent)},
    }
    sys.stdout.write(json.dumps([*others, ours]) + "\n")
    return 0


def _check() -> int:
    if not _is_configured():
        nothing = (
            "no Airflow is set up here: AIRFLOW_HOME is not set (`make up` brings its own, pool and all)"
        )
        sys.stdout.write(f"{nothing}\n")
        return 0
    from dags import check
    from pipeline.display import print_findings

    findings = check.examine(NAME)
    print_findings(findings)
    return 0 if all(finding["ok"] for finding in findings) else 1


def _is_configured() -> bool:
    """Return whether an Airflow is set up in this environment; asking Airflow itself would set one up."""
    return any(name in os.environ for name in SET_UP) or Path("~/airflow/airflow.cfg").expanduser().exists()


if __name__ == "__main__":
    sys.exit(main())
