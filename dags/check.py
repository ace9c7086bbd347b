"""Has this Airflow what vaewatch's DAGs need of it: a bundle in which it finds them, and the trainings' pool.

Belongs here: one finding per part, with what to do about a failure. Does not: repairs, or what `vaewatch
doctor` looks at (pipeline/doctor.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dags.frame import POOL

LOCAL = "airflow.dag_processing.bundles.local.LocalDagBundle"
OURS = Path(__file__).resolve().parent


def examine(bundle: str) -> list[dict[str, Any]]:
    """Return findings as {what, ok, found}, like the doctor's.

    Args:
        bundle: the name of vaewatch's own.
    """
    return [_bundle(bundle), _pool()]


def _bundle(ours: str) -> dict[str, Any]:
    from airflow.sdk.configuration import conf

    names, usual = [], conf.get("core", "dags_folder")
    for one in conf.getjson("dag_processor", "dag_bundle_config_list"):
        names.append(one["name"])
        path = Path(one.get("kwargs", {}).get("path") or usual).resolve()
        if one["classpath"] == LOCAL and OURS.is_relative_to(path):
            return _found("DAG bundle", f"{one['name']}, {path}")
        if one["classpath"] != LOCAL and one["name"] == ours:
            return _found("DAG bundle", f"{ours}, which is not a local folder: its content is not checked")
    there = f"none of {', '.join(names)} holds {OURS}" if names else "there is none"
    how = "bundles=$(python -m dags) && export AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST=$bundles"
    return _lacks("DAG bundle", f"{there}; tell every component of Airflow: {how}")


def _pool() -> dict[str, Any]:
    from airflow.models.pool import Pool
    from sqlalchemy.exc import SQLAlchemyError

    what = f"pool {POOL}"
    try:
        pool = Pool.get_pool(POOL)
    except SQLAlchemyError as fault:
        why = str(fault).partition("\n")[0]
        return _lacks(what, f"Airflow's database does not answer ({why}); if it is new: airflow db migrate")
    if pool is None:
        make = f'airflow pools set {POOL} 1 "one training at a time"'
        return _lacks(what, f"it is missing, so trainings wait for ever; make it: {make}")
    return _found(what, f"trainings that run at once: {pool.slots if pool.slots > 0 else 'any number'}")


def _found(what: str, found: str) -> dict[str, Any]:
    return {"what": what, "ok": True, "found": found}


def _lacks(what: str, found: str) -> dict[str, Any]:
    return {"what": what, "ok": False, "found": found}
