"""The DAGs that work on models: train, promote, approve, prune.

Belongs here: when, in which order, who is asked. Does not: the work (pipeline/steps/), or the notes for
whoever is woken (notes.py).
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import (  # type: ignore[attr-defined]  # its stub lacks the deadline classes
    CronTriggerTimetable,
    DeadlineAlert,
    DeadlineReference,
    Param,
    PartitionedAssetTimetable,
    SyncCallback,
    task,
)
from airflow.sdk.exceptions import AirflowSkipException

from dags import links, notes
from dags.frame import POOL, DatasetDags, log, skipped
from dags.installation import installation
from dags.lineage import tell
from pipeline.errors import NotReady


def train(of: DatasetDags) -> None:
    """Define the nightly DAG: accepted window → model version → may it serve?"""
    name, settings, trained = of.name, of.dataset.train, of.trained
    hours = settings.deadline_hours
    note = notes.TRAIN.format(name=name, window=settings.window_days, cron=settings.schedule, hours=hours)
    late = DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=timedelta(hours=hours),
        callback=SyncCallback("dags.alerts.training_late", kwargs={"dataset": name, "hours": hours}),
    )
    when = CronTriggerTimetable(settings.schedule, timezone="UTC")
    params = {
        "force": Param(False, type="boolean", description="train even where train.when finds no occasion")
    }
    with of.dag("train", note, schedule=when, max_active_runs=1, deadline=late, params=params):

        @task(pool=POOL, multiple_outputs=False)
        def train(*, params: Any = None) -> dict[str, Any]:
            from pipeline import steps
            from pipeline.steps import lineage

            here = installation()
            try:
                receipt = steps.train(here, name, force=params["force"], say=log.info)
            except NotReady as early:
                if here.ledger.serving_version(name) is None:
                    raise AirflowSkipException(str(early)) from early
                raise
            if receipt.outcome == "skipped":
                raise AirflowSkipException(f"no occasion to train: {receipt.reason}")
            for doubt in receipt.notes:
                log.warning(doubt)
            links.show_trained(receipt)
            tell(lineage.trained, name, receipt.model_version)
            return {
                "outcome": receipt.outcome,
                "model_version": receipt.model_version,
                "alias": receipt.alias,
            }

        # a challenger in its shadow is measured on the new days whether or not another one was trained
        rule = "none_failed" if of.dataset.promote.shadow_days else "all_success"

        @task(multiple_outputs=False, outlets=[trained, of.champion], trigger_rule=rule)
        def evaluate(*, outlet_events: Any = None) -> dict[str, Any]:
            from pipeline import steps

            try:
                judged = steps.evaluate(installation(), name, say=log.info)
            except NotReady as early:
                raise AirflowSkipException(str(early)) from early
            log.info("%s", judged.reason)
            if judged.outcome == "passed" and judged.alias == "challenger":
                outlet_events[trained].add_partitions([str(judged.model_version)])
            return {
                "outcome": judged.outcome,
                "model_version": judged.model_version,
                "alias": judged.alias,
                "reason": judged.reason,
            }

        links.attach(train(), links.TRAINING, links.VERSION) >> evaluate()


def promote(of: DatasetDags) -> None:
    """Define the DAG: challenger → champion, by itself after training, or when somebody says so."""
    name, automatic = of.name, of.dataset.promote.mode == "automatic"
    mode = of.dataset.promote.mode
    how = (
        "every challenger, automatically"
        if automatic
        else f"only when triggered, because promote.mode is {mode}"
    )
    note = notes.PROMOTE.format(name=name, how=how)
    params = {
        "version": Param(
            None, type=["null", "integer"], description="model version; default: the challenger"
        ),
        "reason": Param(
            "",
            type="string",
            description="why; kept as a tag on the version; needed for one that is refused or not judged",
        ),
    }
    when = PartitionedAssetTimetable(assets=of.trained) if automatic else None
    with of.dag("promote", note, schedule=when, max_active_runs=1, params=params):

        @task(multiple_outputs=False)
        def promote(*, dag_run: Any = None, params: Any = None) -> dict[str, Any]:
            from pipeline import steps

            version = int(dag_run.partition_key) if dag_run.partition_key else params["version"]
            by = dag_run.triggering_user_name or "vaewatch"
            why = params["reason"].strip()
            reason = why or f"{'automatic' if dag_run.partition_key else 'manual'}: {dag_run.run_id}"
            by_hand = version is not None and not dag_run.partition_key
            overrides = by_hand and bool(why)  # a run's name is no reason to override a gate
            receipt = steps.promote(
                installation(), name, version, by=by, reason=reason, override=overrides, say=log.info
            )
            return {
                "outcome": receipt.outcome,
                "model_version": receipt.model_version,
                "previous": receipt.previous,
                "reason": receipt.reason,
            }

        promote()


def approve(of: DatasetDags) -> None:
    """Define the DAG: challenger → question in Airflow's pages → champion, or a rejection on record."""
    from dags.approval import Approval, open_questions, remember

    name, hours = of.name, of.dataset.promote.approval_hours
    note = notes.APPROVE.format(name=name, hours=hours)
    version = Param(None, type=["null", "integer"], description="model version; default: the challenger")
    when = PartitionedAssetTimetable(assets=of.trained)
    with of.dag("approve", note, schedule=when, params={"version": version}):
        # one at a time: two runs must not both find that nothing is asked yet
        @task(multiple_outputs=False, max_active_tis_per_dag=1)
        def evidence(*, dag_run: Any = None, params: Any = None, ti: Any = None) -> dict[str, Any]:
            from pipeline import steps

            version = int(dag_run.partition_key) if dag_run.partition_key else params["version"]
            receipt = steps.evidence(installation(), name, version)
            if receipt.outcome == "serving":
                raise skipped(f"version {receipt.model_version} is champion already")
            number, asked = receipt.model_version, open_questions(ti, name)
            if number in asked:
                raise skipped(f"run {asked[number].run_id} already asks about version {number}")
            others = [question.warning for question in asked.values()] if receipt.is_challenger else []
            remember(ti, name, number, asked)
            return {
                "version": number,
                "markdown": "\n\n".join([receipt.markdown, *others]),
                "objection": receipt.objection,
                "is_challenger": receipt.is_challenger,
            }

        approve = Approval(
            task_id=Approval.TASK,
            subject=f"Shall version {{{{ ti.xcom_pull('evidence')['version'] }}}} of {name} become champion?",
            body="{{ ti.xcom_pull('evidence')['markdown'] }}",
            params={"note": Param("", type="string", description=notes.WHY)},
            defaults="Reject",
            response_timeout=timedelta(hours=hours),
            retry_delay=timedelta(seconds=5),  # an answer that Airflow did not hear is waiting
        )

        @task(multiple_outputs=False)
        def settle(*, ti: Any = None) -> dict[str, Any]:
            from pipeline import steps

            answer, shown = Approval.answer(ti), ti.xcom_pull(task_ids="evidence")
            version, (by, reason) = shown["version"], decided(answer, hours)
            if answer["chosen_options"] == [Approval.APPROVE]:
                outcome = steps.promote(
                    installation(),
                    name,
                    version,
                    by=by,
                    reason=reason,
                    # objections that have come up since the question are not overridden
                    override=bool(shown["objection"]),
                    as_challenger=shown.get("is_challenger", False),  # if it is not, the question said so
                    say=log.info,
                ).outcome
            else:
                outcome = steps.reject(installation(), name, version, by=by, reason=reason).outcome
            return {"outcome": outcome, "model_version": version, "by": by, "reason": reason}

        evidence() >> approve >> settle()


def decided(answer: Any, hours: float) -> tuple[str, str]:
    """Return who answered, and why (empty without a note): what goes on record with the version."""
    user, note = answer["responded_by_user"], (answer["params_input"] or {}).get("note", "").strip()
    if user is None:
        return "nobody", f"not answered within {hours:g} h"
    return user["name"] or user["id"], note


def prune(of: DatasetDags) -> None:
    """Define the weekly DAG that removes for good what retention does not keep."""
    name, kept = of.name, of.dataset.retention
    note = notes.PRUNE.format(name=name, cron=kept.schedule, n=kept.versions)
    when = CronTriggerTimetable(kept.schedule, timezone="UTC")
    dry_run = Param(False, type="boolean", description="only say what would go, and why the rest stays")
    with of.dag("prune", note, schedule=when, max_active_runs=1, params={"dry_run": dry_run}):

        @task(multiple_outputs=False)
        def prune(*, params: Any = None) -> dict[str, Any]:
            from pipeline import steps

            receipt = steps.prune(installation(), name, dry_run=params["dry_run"], say=log.info)
            return {
                "outcome": receipt.outcome,
                "versions": [one.version for one in receipt.removed if one.version],
                "n_runs": len(receipt.removed),
                "local": list(receipt.local),
                "n_files_replaced": receipt.n_files_replaced,
                "n_bytes": receipt.n_bytes + receipt.n_bytes_local + receipt.n_bytes_replaced,
                "kept": {str(number): list(why) for number, why in receipt.kept.items()},
            }

        prune()
