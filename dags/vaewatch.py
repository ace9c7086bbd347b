"""Six DAGs per dataset: discover, score, train, promote, rescore, prune; and approve, where a person is
asked. A demo has those of its own dataset alone, without prune: nobody waits for that there.

Belongs here: which DAGs there are. Does not: what is in them (scoring.py, models.py). Nothing heavy is
imported outside a task: Airflow reads this file every half minute.
"""

from __future__ import annotations

from airflow.sdk import get_parsing_context

from dags import models, scoring
from dags.catalogue import read_catalogue
from dags.frame import DatasetDags
from pipeline.config.settings import load_settings

settings = load_settings()
# set where a task is about to run: the other datasets need not be read
wanted = get_parsing_context().dag_id
only = wanted.rpartition(".")[0] if wanted else settings.demo
for dataset in read_catalogue(settings.datasets, only=only).datasets.values():
    of = DatasetDags(dataset)
    for make in (scoring.discover, scoring.score, models.train, models.promote):
        make(of)
    if dataset.promote.mode == "approval":
        models.approve(of)
    scoring.rescore(of)
    if not settings.demo:
        models.prune(of)
