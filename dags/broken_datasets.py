"""Fails to import while a dataset file has faults: Airflow then shows the reason on top of every page.

A DAG file gives either all its DAGs or none, so the complaint has a file of its own and the good datasets run
on. The DAGs of the broken dataset are gone until its file is corrected; Airflow looks again every half
minute.
"""

from __future__ import annotations

from dags.catalogue import read_catalogue
from pipeline.config.settings import load_settings
from pipeline.errors import ConfigError

settings = load_settings()
if faults := read_catalogue(settings.datasets, only=settings.demo).faults:
    raise ConfigError("\n".join(["no DAGs (airflow) for these dataset files:", *faults]))
