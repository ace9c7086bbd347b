"""The DAGs that work on batches: discover, score, rescore.

Belongs here: when, in which order. Does not: the work (pipeline/steps/), or the notes for whoever is woken
(notes.py).
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import AssetOrTimeSchedule, CronTriggerTimetable, Param, PartitionedAssetTimetable, task

from dags import links, notes
from dags.frame import RETRIES, DatasetDags, brief, complain, log, skipped
from dags.installation import installation
from dags.lineage import tell
from pipeline.errors import ConfigError, ContractRefused, ModelUnusable


def discover(of: DatasetDags) -> None:
    """Define the DAG: cron and doorbell → the due batches' keys."""
    name, group, landed, cron = (
        of.name,
        of.dataset.schedule.group,
        of.landed,
        of.dataset.schedule.discover,
    )
    note = notes.DISCOVER.format(name=name, folder=of.dataset.incoming_path, cron=cron)
    clock = CronTriggerTimetable(cron, timezone="UTC")
    when = AssetOrTimeSchedule(timetable=clock, assets=of.inbox | of.champion)
    with of.dag("discover", note, schedule=when, max_active_runs=1):

        @task(outlets=[landed])
        def look(*, outlet_events: Any = None) -> int:
            from pipeline import steps

            keys = steps.discover(installation(), name, group=group, claim=True)
            if not keys:
                raise skipped("nothing is due")
            outlet_events[landed].add_partitions(keys)
            return len(keys)

        look()


def score(of: DatasetDags) -> None:
    """Define the DAG: one run per key, validate → score, and a red leaf where the data broke its contract."""
    name, file = of.name, of.dataset.file
    note = notes.SCORE.format(name=name, retries=RETRIES, file=file)
    batch = Param(
        None,
        type=["null", "string"],
        description="batch_id, or first..last; needed where the run has no partition key",
    )
    when = PartitionedAssetTimetable(assets=of.landed)
    at_once = of.dataset.scored_at_once
    with of.dag("score", note, schedule=when, max_active_runs=at_once, params={"batch": batch}):

        @task(multiple_outputs=False)
        def validate(*, dag_run: Any = None, params: Any = None) -> dict[str, Any]:
            from pipeline import steps
            from pipeline.steps import lineage

            key = key_of(dag_run, params)
            checked = steps.validate(installation(), name, key, say=log.info)
            for note in checked.notes:
                log.warning(note)
            links.show_checked(checked)
            tell(lineage.validated, name, key)
            return brief(checked)

        @task(multiple_outputs=False, outlets=[of.scored])
        def score(*, dag_run: Any = None, params: Any = None) -> dict[str, Any]:
            from pipeline import steps
            from pipeline.steps import lineage

            key = key_of(dag_run, params)
            receipt = steps.score(installation(), name, key, say=log.info)
            for note in receipt.notes:
                log.warning(note)
            links.show_scored(receipt)
            tell(lineage.scored, name, key)
            done = brief(receipt)
            complain(name, done["failed"], ModelUnusable)
            if not {"scored", "unchanged"} & done["batches"].keys():
                # a skip updates no asset, so nothing that waits for scores starts
                raise skipped(f"no batch has scores: {done['batches']}")
            return done

        @task
        def contract(checked: Any) -> None:
            complain(name, checked["failed"] | checked["refused"], ContractRefused)

        checked = links.attach(validate(), links.REPORT)
        checked >> links.attach(score(), links.REPORT, links.RECORDS)
        contract(checked)


def rescore(of: DatasetDags) -> None:
    """Define the DAG that scores the batches from first to last again, by hand."""
    name, scored = of.name, of.scored
    params = {
        "first": Param(type="string", minLength=1, description="batch_id"),
        "last": Param(None, type=["null", "string"], description="batch_id; default: only the first"),
        "check_again": Param(
            False, type="boolean", description="first check the batches against the contract as it is now"
        ),
    }
    note = notes.RESCORE.format(name=name)
    with of.dag("rescore", note, schedule=None, max_active_runs=1, params=params):

        @task(multiple_outputs=False, outlets=[scored])
        def rescore(*, params: Any = None, outlet_events: Any = None) -> dict[str, Any]:
            from pipeline import steps
            from pipeline.steps import lineage

            here, key = installation(), f"{params['first']}{steps.RANGE}{params['last'] or params['first']}"
            again = params["check_again"]
            checked = steps.validate(here, name, key, force=True, say=log.info) if again else None
            receipt = steps.score(here, name, key, force=True, say=log.info)
            if checked:
                tell(lineage.validated, name, key)
            links.show_scored(receipt)
            tell(lineage.scored, name, key)
            if keys := [batch.batch_id for batch in receipt.with_outcome("scored")]:
                outlet_events[scored].add_partitions(keys)
            done = brief(receipt)
            complain(name, done["failed"], ModelUnusable)
            if checked:
                complain(name, brief(checked)["failed"] | brief(checked)["refused"], ContractRefused)
            return done

        links.attach(rescore(), links.REPORT, links.RECORDS)


def key_of(dag_run: Any, params: Any) -> str:
    """Return the run's key: from the asset event, or from whoever triggered it."""
    key = dag_run.partition_key or params["batch"]
    if not key:
        raise ConfigError("say which batch: trigger with a partition key, or with the parameter `batch`")
    return str(key)
