"""`python -m dags`: Airflow's list of DAG bundles as it is configured, with vaewatch's own added.

Belongs here: that one value. Does not: the DAGs (vaewatch.py).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from airflow.sdk.configuration import conf

NAME = "vaewatch"


def main() -> None:
    """Print the list."""
    bundles = conf.getjson("dag_processor", "dag_bundle_config_list")
    others = [bundle for bundle in bundles if bundle["name"] != NAME]
    ours = {
        "name": NAME,
        "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
        "kwargs": {"path": str(Path(__file__).parent)},
    }
    sys.stdout.write(json.dumps([*others, ours]) + "\n")


if __name__ == "__main__":
    main()
