"""Six DAGs a dataset: discover, score, train, promote, rescore, prune; and approve, where a person is asked.

Belongs here: when, in which order, who tries again. Does not: the work (pipeline/steps/), or the words for the
night (notes.py). Nothing heavy is imported outside a task: Airflow reads this file every half minute.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from airflow.sdk import (  # type: ignore[attr-defined]  # its stub lacks the deadline classes
    DAG,
    Asset,
    AssetOrTimeSchedule,
    AssetWatcher,
    CronTriggerTimetable,
    DeadlineAlert,
    DeadlineReference,
    ExceptionRetryPolicy,
    Param,
    PartitionedAssetTimetable,
    RetryAction,
    RetryRule,
    SyncCallback,
    get_parsing_context,
    task,
)
from airflow.sdk.exceptions import AirflowSkipException

from dags import links, notes
from dags.catalogue import read_catalogue
from dags.lineage import tell
from dags.mail import installation
from dags.watcher import SettledFiles
from pipeline.config import Dataset
from pipeline.errors import (
    CheckCrashed,
    ConfigError,
    ContractRefused,
    ModelUnusable,
    NotReady,
    RegistryUnreachable,
    StorageFailed,
    VaewatchError,
)
from pipeline.settings import load_settings

log = logging.getLogger("vaewatch")

RETRIES = 3
POLICY = ExceptionRetryPolicy(
    rules=[  # the first that matches, subclasses included
        RetryRule([StorageFailed, RegistryUnreachable, CheckCrashed], RetryAction.RETRY),
        RetryRule(
            VaewatchError, RetryAction.FAIL, reason="the same input fails the same way: a person must look"
        ),
        RetryRule(OSError, RetryAction.RETRY),
    ]
)
DEFAULTS = {
    "owner": "vaewatch",
    "retries": RETRIES,
    "retry_delay": timedelta(seconds=30),
    "retry_exponential_backoff": 2,
    "max_retry_delay": timedelta(minutes=10),
    "retry_policy": POLICY,
}


WHAT = {
    "discover": "find batches that landed and are due, ring for score",
    "score": "check batches against the contract and score them with the champion",
    "train": "learn the newest window of accepted records, register the model, judge whether it may serve",
    "promote": "make a challenger the champion",
    "approve": "ask a person whether a challenger becomes champion",
    "rescore": "score chosen batches again",
    "prune": "remove model versions that nothing refers to any more",
}


class DatasetDags:
    """The DAGs of one dataset. Assets tie them together: batch_landed → score, model_trained → promote."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset, self.name = dataset, dataset.dataset
        self.landed = Asset(f"{self.name}.batch_landed")
        self.scored = Asset(f"{self.name}.batch_scored")
        self.trained = Asset(f"{self.name}.model_trained")
        self.champion = Asset(f"{self.name}.champion")
        bell = SettledFiles(str(dataset.incoming_path), dataset.incoming.settle_seconds)
        self.inbox = Asset(f"{self.name}.inbox", watchers=[AssetWatcher(f"{self.name}.inbox", trigger=bell)])

    def build(self) -> None:
        """Make the DAGs; leaving a DAG's `with` hands it to Airflow."""
        self.discover()
        self.score()
        self.train()
        self.promote()
        if self.dataset.promote.mode == "approval":
            self.approve()
        self.rescore()
        self.prune()

    def dag(self, verb: str, note: str, schedule: Any, **settings: Any) -> DAG:
        return DAG(
            f"{self.name}.{verb}",
            description=WHAT[verb],
            doc_md=note,
            tags={"vaewatch", self.name, verb},
            schedule=schedule,
            default_args=DEFAULTS,
            **settings,
        )

    def discover(self) -> None:
        """Cron and doorbell → the due batches' keys."""
        name, group, landed, cron = (
            self.name,
            self.dataset.schedule.group,
            self.landed,
            self.dataset.schedule.discover,
        )
        note = notes.DISCOVER.format(name=name, folder=self.dataset.incoming_path, cron=cron)
        clock = CronTriggerTimetable(cron, timezone="UTC")
        when = AssetOrTimeSchedule(timetable=clock, assets=self.inbox | self.champion)
        with self.dag("discover", note, schedule=when, max_active_runs=1):

            @task(outlets=[landed])
            def look(*, outlet_events: Any = None) -> int:
                from pipeline import steps

                keys = steps.discover(name, group=group, claim=True)
                if not keys:
                    raise skipped("nothing is due")
                outlet_events[landed].add_partitions(keys)
                return len(keys)

            look()

    def score(self) -> None:
        """One run a key: validate → score, and a red leaf where the data broke its contract."""
        name, file = self.name, self.dataset.file
        note = notes.SCORE.format(name=name, retries=RETRIES, file=file)
        batch = Param(
            None, type=["null", "string"], description="batch_id, or first..last; without a partition key"
        )
        when = PartitionedAssetTimetable(assets=self.landed)
        # derived columns look back into the batch before: it must be there
        slots = 1 if self.dataset.derived else self.dataset.schedule.parallel
        with self.dag("score", note, schedule=when, max_active_runs=slots, params={"batch": batch}):

            @task(multiple_outputs=False)
            def validate(*, dag_run: Any = None, params: Any = None) -> dict[str, Any]:
                from pipeline import lineage, steps

                key = key_of(dag_run, params)
                checked = steps.validate(name, key, say=log.info)
                links.show_checked(checked)
                tell(lineage.validated, name, key)
                return brief(checked)

            @task(multiple_outputs=False, outlets=[self.scored])
            def score(*, dag_run: Any = None, params: Any = None) -> dict[str, Any]:
                from pipeline import lineage, steps

                key = key_of(dag_run, params)
                receipt = steps.score(name, key, say=log.info, installation=installation())
                links.show_scored(receipt)
                tell(lineage.scored, name, key)
                done = brief(receipt)
                complain(name, done["failed"], ModelUnusable)
                return done

            @task
            def contract(checked: Any) -> None:
                complain(name, checked["failed"] | checked["refused"], ContractRefused)

            checked = links.attach(validate(), links.REPORT)
            checked >> links.attach(score(), links.REPORT, links.RECORDS)
            contract(checked)

    def train(self) -> None:
        """Nightly: accepted window → model version → may it serve?"""
        name, settings, trained = self.name, self.dataset.train, self.trained
        hours = settings.deadline_hours
        note = notes.TRAIN.format(name=name, window=settings.window_days, cron=settings.schedule, hours=hours)
        late = DeadlineAlert(
            reference=DeadlineReference.DAGRUN_QUEUED_AT,
            interval=timedelta(hours=hours),
            callback=SyncCallback("dags.alerts.training_late", kwargs={"dataset": name, "hours": hours}),
        )
        when = CronTriggerTimetable(settings.schedule, timezone="UTC")
        params = {"force": Param(False, type="boolean", description="train whatever train.when says")}
        with self.dag("train", note, schedule=when, max_active_runs=1, deadline=late, params=params):

            @task(pool="gpu", multiple_outputs=False)
            def train(*, params: Any = None) -> dict[str, Any]:
                from pipeline import lineage, steps
                from pipeline.installation import Installation

                try:
                    receipt = steps.train(name, force=params["force"], say=log.info)
                except NotReady as early:
                    if Installation().ledger.serving_version(name) is None:
                        raise AirflowSkipException(str(early)) from early
                    raise
                if receipt.outcome == "skipped":
                    raise AirflowSkipException(f"no occasion to train: {receipt.details['reason']}")
                links.show_trained(receipt)
                tell(lineage.trained, name, receipt.model_version)
                return {
                    "outcome": receipt.outcome,
                    "model_version": receipt.model_version,
                    "alias": receipt.alias,
                }

            # a challenger in its shadow is measured on the new days whether or not another one was trained
            rule = "none_failed" if self.dataset.promote.shadow_days else "all_success"

            @task(multiple_outputs=False, outlets=[trained, self.champion], trigger_rule=rule)
            def evaluate(*, outlet_events: Any = None) -> dict[str, Any]:
                from pipeline import steps

                try:
                    judged = steps.evaluate(name, say=log.info)
                except NotReady as early:
                    raise AirflowSkipException(str(early)) from early
                log.info("%s", judged.details.get("reason", ""))
                if judged.outcome == "passed" and judged.alias == "challenger":
                    outlet_events[trained].add_partitions([str(judged.model_version)])
                return {
                    "outcome": judged.outcome,
                    "model_version": judged.model_version,
                    "alias": judged.alias,
                    "reason": judged.details.get("reason", ""),
                }

            links.attach(train(), links.TRAINING, links.VERSION) >> evaluate()

    def promote(self) -> None:
        """A challenger → champion: by itself after training, or when somebody says so."""
        name, automatic = self.name, self.dataset.promote.mode == "automatic"
        mode = self.dataset.promote.mode
        how = "every challenger, by itself" if automatic else f"when triggered, since promote.mode is {mode}"
        note = notes.PROMOTE.format(name=name, how=how)
        params = {
            "version": Param(
                None, type=["null", "integer"], description="model version; default: the challenger"
            ),
            "reason": Param("", type="string", description="goes on record with the version"),
        }
        when = PartitionedAssetTimetable(assets=self.trained) if automatic else None
        with self.dag("promote", note, schedule=when, max_active_runs=1, params=params):

            @task(multiple_outputs=False)
            def promote(*, dag_run: Any = None, params: Any = None) -> dict[str, Any]:
                from pipeline import steps

                version = int(dag_run.partition_key) if dag_run.partition_key else params["version"]
                by = dag_run.triggering_user_name or "vaewatch"
                reason = (
                    params["reason"]
                    or f"{'automatic' if dag_run.partition_key else 'manual'}: {dag_run.run_id}"
                )
                by_hand = version is not None and not dag_run.partition_key
                receipt = steps.promote(name, version, by=by, reason=reason, override=by_hand)
                return {"outcome": receipt.outcome, "model_version": receipt.model_version, **receipt.details}

            promote()

    def approve(self) -> None:
        """A challenger → a question in Airflow's pages → champion, or a rejection on record."""
        from dags.approval import Approval, asked_already

        name, hours = self.name, self.dataset.promote.approval_hours
        note = notes.APPROVE.format(name=name, hours=hours)
        version = Param(None, type=["null", "integer"], description="model version; default: the challenger")
        when = PartitionedAssetTimetable(assets=self.trained)
        with self.dag("approve", note, schedule=when, params={"version": version}):
            # one at a time: two runs must not both find that nothing is asked yet
            @task(multiple_outputs=False, max_active_tis_per_dag=1)
            def evidence(*, dag_run: Any = None, params: Any = None, ti: Any = None) -> dict[str, Any]:
                from pipeline import steps

                version = int(dag_run.partition_key) if dag_run.partition_key else params["version"]
                receipt = steps.evidence(name, version)
                if receipt.outcome == "serving":
                    raise skipped(f"version {receipt.model_version} is champion already")
                if other := asked_already(ti, name, receipt.model_version):
                    raise skipped(f"version {receipt.model_version} is asked about already, by run {other}")
                return {"version": receipt.model_version, **receipt.details}

            approve = Approval(
                task_id=Approval.TASK,
                subject=f"Shall version {{{{ ti.xcom_pull('evidence')['version'] }}}} of {name} become champion?",
                body="{{ ti.xcom_pull('evidence')['markdown'] }}",
                params={"note": Param("", type="string", description="why; goes on record with the version")},
                defaults="Reject",
                response_timeout=timedelta(hours=hours),
            )

            @task(multiple_outputs=False)
            def settle(*, ti: Any = None) -> dict[str, Any]:
                from pipeline import steps

                answer, shown = (ti.xcom_pull(task_ids=task_id) for task_id in ("approve", "evidence"))
                version, (by, reason) = shown["version"], decided(answer, hours)
                if answer["chosen_options"] == [Approval.APPROVE]:
                    known = bool(shown["objection"])  # what has come up since the question is not overridden
                    receipt = steps.promote(name, version, by=by, reason=reason, override=known)
                else:
                    receipt = steps.reject(name, version, by=by, reason=reason)
                return {"outcome": receipt.outcome, "model_version": version, "by": by, "reason": reason}

            evidence() >> approve >> settle()

    def rescore(self) -> None:
        """By hand: batches first to last, again."""
        name, scored = self.name, self.scored
        params = {
            "first": Param(type="string", minLength=1, description="batch_id"),
            "last": Param(None, type=["null", "string"], description="batch_id; default: only the first"),
            "check_again": Param(False, type="boolean", description="apply the contract as it is now first"),
        }
        note = notes.RESCORE.format(name=name)
        with self.dag("rescore", note, schedule=None, max_active_runs=1, params=params):

            @task(multiple_outputs=False, outlets=[scored])
            def rescore(*, params: Any = None, outlet_events: Any = None) -> dict[str, Any]:
                from pipeline import lineage, steps

                key = f"{params['first']}{steps.RANGE}{params['last'] or params['first']}"
                checked = (
                    steps.validate(name, key, force=True, say=log.info) if params["check_again"] else None
                )
                receipt = steps.score(name, key, force=True, say=log.info, installation=installation())
                if checked:
                    tell(lineage.validated, name, key)
                links.show_scored(receipt)
                tell(lineage.scored, name, key)
                if again := [batch.batch_id for batch in receipt.with_outcome("scored")]:
                    outlet_events[scored].add_partitions(again)
                done = brief(receipt)
                complain(name, done["failed"], ModelUnusable)
                if checked:
                    complain(name, brief(checked)["failed"] | brief(checked)["refused"], ContractRefused)
                return done

            links.attach(rescore(), links.REPORT, links.RECORDS)

    def prune(self) -> None:
        """Weekly: what retention does not keep goes for good."""
        name, kept = self.name, self.dataset.retention
        note = notes.PRUNE.format(name=name, cron=kept.schedule, n=kept.versions)
        when = CronTriggerTimetable(kept.schedule, timezone="UTC")
        with self.dag("prune", note, schedule=when, max_active_runs=1):

            @task(multiple_outputs=False)
            def prune() -> dict[str, Any]:
                from pipeline import steps

                receipt = steps.prune(name, say=log.info)
                gone = receipt.details["removed"]
                return {
                    "outcome": receipt.outcome,
                    "versions": [one["version"] for one in gone if one["version"]],
                    "n_runs": len(gone),
                    "n_bytes": receipt.details["n_bytes"] + receipt.details["n_bytes_local"],
                }

            prune()


def key_of(dag_run: Any, params: Any) -> str:
    """The run's key: from the asset event, or from whoever triggered it."""
    key = dag_run.partition_key or params["batch"]
    if not key:
        raise ConfigError("say which batch: trigger with a partition key, or with the parameter `batch`")
    return str(key)


def skipped(why: str) -> AirflowSkipException:
    """For the log, too: Airflow keeps the reason of a skipped task to itself."""
    log.info("%s", why)
    return AirflowSkipException(why)


def decided(answer: Any, hours: float) -> tuple[str, str]:
    """Who answered, and why: what goes on record with the version."""
    user, note = answer["responded_by_user"], (answer["params_input"] or {}).get("note", "").strip()
    if user is None:
        return "nobody", f"not answered within {hours:g} h"
    return user["name"] or user["id"], note or "no reason was given"


def brief(receipt: Any) -> dict[str, Any]:
    """Counts, and the batches that stopped with their reasons: small enough to travel between tasks."""
    outcomes = [batch.outcome for batch in receipt.batches]
    stopped = {
        outcome: {batch.batch_id: batch.reason[:500] for batch in receipt.with_outcome(outcome)}
        for outcome in ("refused", "failed")
    }
    return {
        "outcome": receipt.outcome,
        "batches": {outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))},
        "n_flagged": sum(batch.n_flagged or 0 for batch in receipt.with_outcome("scored")),
        "model_version": receipt.model_version,
        **stopped,
    }


def complain(name: str, stopped: dict[str, str], kind: type[VaewatchError]) -> None:
    """Raise, naming every batch that stopped and why; silent where none did."""
    if stopped:
        raise kind("\n".join(f"{name} {batch_id}: {reason}" for batch_id, reason in sorted(stopped.items())))


wanted = (
    get_parsing_context().dag_id
)  # set where a task is about to run: the other datasets need not be read then
for dataset in read_catalogue(
    load_settings().datasets, only=wanted.rpartition(".")[0] if wanted else None
).datasets.values():
    DatasetDags(dataset).build()
