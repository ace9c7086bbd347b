"""Model versions: log and register one, say which serves, fetch it, move the champion there and back.

Belongs here: the only door to MLflow; its objects do not leave this package. Does not: whether a version deserves to
serve (evaluation.py), or what a detector holds (detector.py). Importing this package imports no MLflow.

What serves is what the alias `champion` names: moving it is the commit of a promotion or a rollback. What the champion
replaced, and how it came to serve, are tags on it, written before; the aliases `previous` and `challenger` and the entry in the
history follow, and the next call puts them right where a process died in between.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from pipeline.errors import ConfigError, ModelUnusable, NotReady
from pipeline.registry import runs
from pipeline.registry.connection import Connection
from pipeline.registry.entities import DatasetInput, ModelVersion, Promotion, Removal, TrainingRun
from pipeline.registry.versions import (
    ARRIVAL,
    CHALLENGER,
    CHAMPION,
    DIGEST,
    KEY,
    METRICS,
    PREVIOUS,
    REPLACED,
    REVIEW,
    Versions,
    tolerating,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

OF_ITS_PLACE = (  # tags of a version that say what was decided of it, beside another champion
    "promoted_", "rejected_", "rolled_back_", "arrival", REPLACED, "decision", "evaluated_", "evaluation_",
)  # fmt: skip
EXISTS = ("RESOURCE_ALREADY_EXISTS",)
EVALUATION = "evaluation.json"

__all__ = ["EVALUATION", "DatasetInput", "ModelVersion", "Promotion", "Registry", "Removal", "TrainingRun"]


class Registry:
    """The model versions of every dataset, at one MLflow."""

    def __init__(
        self, tracking_uri: str, artifacts: Path | str | None = None, prefix: str = "vaewatch"
    ) -> None:
        """Note where MLflow is; it is imported and asked at the first call.

        Args:
            artifacts: folder or address for models and plots, where MLflow is a database; by default beside a SQLite
                file. A tracking server (http) decides for itself.
            prefix: models are PREFIX.DATASET, experiments PREFIX/DATASET: environments may share an MLflow.

        Raises:
            ConfigError: MLflow keeps no model registry at such an address, or models have no place.
        """
        self._connection = Connection(tracking_uri)
        database = self._connection.database
        if artifacts is None and database is not None:
            artifacts = database.parent / "mlartifacts"
        if artifacts is None and not self._connection.is_server:
            raise ConfigError(f"models have no place beside {self._connection.shown}: give a folder for them")
        if isinstance(artifacts, Path):
            artifacts = artifacts.absolute().as_uri()
        self._artifacts = None if self._connection.is_server else artifacts
        self._prefix = prefix
        self.address = self._connection.shown  # without credentials
        self.shown = f"{prefix} at {self.address}"

    def name(self, dataset: str) -> str:
        """What MLflow calls a dataset's model."""
        return f"{self._prefix}.{dataset}"

    def prepare(self) -> None:
        """Create or upgrade MLflow's database; where it is done, this is a look at two files. Safe to do at once.

        Raises:
            RegistryUnreachable: the database does not answer.
        """
        with self._connection.telling("prepare its database"):
            self._connection.prepare()

    def register(self, run: TrainingRun) -> ModelVersion:
        """Log a training and make it a version; the same training again gives the same version and logs nothing.

        Raises:
            RegistryUnreachable: MLflow does not answer, or refuses; no version was made.
            ModelUnusable: the model cannot score its own example; no version was made.
        """
        with self._of(run.dataset, "register a model") as versions:
            made = versions.made_by(run.training_key) or self._make(versions, run)
            if versions.client.get_run(made.run_id).info.status != "FINISHED":
                versions.client.set_terminated(made.run_id, "FINISHED")
            return made

    def made_by(self, dataset: str, training_key: str) -> ModelVersion | None:
        """The version that a training made; None where it was not registered."""
        with self._of(dataset, "look up a training") as versions:
            return versions.made_by(training_key)

    def champion(self, dataset: str) -> ModelVersion | None:
        """The version that serves; None where none does yet."""
        with self._of(dataset, "look up the champion") as versions:
            return versions.find(CHAMPION)

    def challenger(self, dataset: str) -> ModelVersion | None:
        """The version that may become champion."""
        with self._of(dataset, "look up the challenger") as versions:
            return versions.find(CHALLENGER)

    def previous(self, dataset: str) -> ModelVersion | None:
        """The version that a rollback would bring back."""
        with self._of(dataset, "look up the previous champion") as versions:
            return versions.before(versions.find(CHAMPION))

    def version(self, dataset: str, number: int) -> ModelVersion:
        """One version.

        Raises:
            NotReady: there is no such version.
        """
        with self._of(dataset, f"look up version {number}") as versions:
            return versions.known(number)

    def versions(self, dataset: str) -> list[ModelVersion]:
        """Every version, oldest first."""
        with self._of(dataset, "list the versions") as versions:
            return versions.all()

    def fetch(self, version: ModelVersion, into: Path) -> Path:
        """The folder of a version's detector, copied under `into` once; tasks may do so at the same time.

        Raises:
            ModelUnusable: the stored files are gone, or are not those that were registered.
        """
        # the run's id keeps a registry that was made anew from being served an older one's version
        folder = into / version.dataset / f"{version.version}-{version.run_id}"
        if folder.exists():
            return folder
        with self._connection.telling(f"fetch version {version.version} of {version.dataset}"):
            draft = folder.with_name(f".{folder.name}.{os.getpid()}.{uuid4().hex[:8]}.tmp")
            draft.mkdir(parents=True)
            try:
                self._download(version, draft).rename(folder)
            except OSError:
                if not folder.exists():  # else another task was quicker
                    raise
            finally:
                shutil.rmtree(draft)
        return folder

    def note(self, dataset: str, version: int) -> tuple[ModelVersion, dict[str, Any]]:
        """A version, and what its training was made of.

        Raises:
            NotReady: there is no such version.
            ModelUnusable: nothing was noted, or it is gone.
        """
        with self._of(dataset, f"read the note of version {version}") as versions:
            chosen = versions.known(version)
            found = runs.read_note(versions.client, chosen.run_id)
            if found is None:
                raise ModelUnusable(
                    f"{dataset} version {version}: its run has no {runs.NOTE}, which says what it was made of: the file "
                    "is gone, or it was trained before vaewatch noted that"
                )
            return chosen, found

    def set_challenger(self, dataset: str, version: int) -> None:
        """Name the version that may become champion; the champion itself is left alone.

        Raises:
            NotReady: there is no such version.
        """
        with self._of(dataset, f"make version {version} challenger") as versions:
            chosen = versions.known(version)
            if CHAMPION not in chosen.aliases:
                versions.point(CHALLENGER, chosen)

    def promote(self, dataset: str, version: int | None = None, *, by: str, reason: str) -> Promotion:
        """Make a version champion; promoting the present champion changes nothing.

        Args:
            version: None for the challenger.
            by: who decided; kept on the version, with the reason and the time.

        Raises:
            NotReady: there is no such version, or no challenger.
        """
        with self._of(dataset, "promote a model") as versions:
            chosen = versions.known(CHALLENGER if version is None else version)
            champion = versions.find(CHAMPION)
            changed = champion is None or champion.version != chosen.version
            if changed:
                audit = {"promoted_by": by, "promoted_at": _now(), "promoted_reason": reason}
                arrival = _arrival("promoted", chosen, champion, audit["promoted_at"], by, reason)
                replaced = champion.version if champion else None
                versions.tag(chosen, **audit, **{REPLACED: replaced, ARRIVAL: arrival})
                versions.point(CHAMPION, chosen)
                return _settle(versions, chosen, champion, changed, arrival)
            return _settle(versions, chosen, versions.before(champion), changed)

    def reject(self, dataset: str, version: int, *, by: str, reason: str) -> bool:
        """Put on record that somebody does not want a version to serve; it is challenger no longer. The champion is left alone.

        Returns:
            False where it serves, or this was on record already: nothing changed.

        Raises:
            NotReady: there is no such version.
        """
        with self._of(dataset, f"reject version {version}") as versions:
            chosen = versions.known(version)
            audit = {"rejected_by": by, "rejected_reason": reason}
            if CHAMPION in chosen.aliases:
                return False
            changed = not audit.items() <= chosen.tags.items()
            if changed:
                versions.tag(chosen, **audit, rejected_at=_now())
            if CHALLENGER in chosen.aliases:
                versions.point(CHALLENGER, None)
            return changed

    def rollback(self, dataset: str, *, by: str, reason: str) -> Promotion:
        """Bring back the champion before this one.

        There is one step back, not a chain: a second rollback is refused, so that a command given twice can neither
        restore the version that was just taken back nor go further than was meant. Promote a version by its number
        to go elsewhere.

        Raises:
            NotReady: there is no champion, or none before it.
        """
        with self._of(dataset, "roll back the champion") as versions:
            champion = versions.known(CHAMPION)
            earlier = versions.before(champion)
            if earlier is None:
                _settle(versions, champion, None, changed=False)
                raise NotReady(
                    f"{dataset}: version {champion.version} is champion, with no earlier one to go back to; "
                    "promote a version by its number instead"
                )
            at = _now()
            arrival = _arrival("rolled back", earlier, champion, at, by, reason)
            versions.tag(champion, rolled_back_by=by, rolled_back_at=at, rolled_back_reason=reason)
            versions.tag(earlier, **{REPLACED: None, ARRIVAL: arrival})
            versions.point(CHAMPION, earlier)
            return _settle(versions, earlier, None, changed=True, arrival=arrival)

    def history(self, dataset: str) -> list[dict[str, Any]]:
        """Every promotion and rollback, oldest first: what, at, version, replaced, by, reason, decision, evaluated_at."""
        with self._of(dataset, "read the history") as versions:
            return versions.events()

    def log_evaluation(
        self, dataset: str, version: int, evaluation: Mapping[str, Any], tags: Mapping[str, str]
    ) -> None:
        """Keep what a version was judged by: the whole as evaluation.json of its run, then the tags, which say that it is there.

        Raises:
            NotReady: there is no such version.
        """
        with self._of(dataset, f"log the evaluation of version {version}") as versions:
            chosen = versions.known(version)
            versions.client.log_text(chosen.run_id, json.dumps(evaluation, indent=1, default=str), EVALUATION)
            versions.tag(chosen, **tags)

    def log_review(self, dataset: str, version: int, metrics: Mapping[str, float]) -> bool:
        """Log what verdicts say of a version, as metrics of its run and a tag on it; False where that was known.

        Raises:
            NotReady: there is no such version.
        """
        with self._of(dataset, f"log the review of version {version}") as versions:
            chosen, told = versions.known(version), json.dumps(dict(metrics), sort_keys=True)
            if chosen.tags.get(REVIEW) == told:
                return False
            for name, value in metrics.items():
                versions.client.log_metric(chosen.run_id, name, value)
            versions.tag(chosen, **{REVIEW: told})
            return True

    def copy_from(
        self, source: Registry, version: ModelVersion, tags: Mapping[str, str]
    ) -> tuple[ModelVersion, bool]:
        """Log and register another registry's version here, with its run's evidence and files of its own.

        A version of the same training that is here already is the answer; nothing is logged then.

        Args:
            tags: say where it comes from. What a version did where it comes from is kept under `source.`.

        Returns:
            The version here, and whether it is new.

        Raises:
            RegistryUnreachable: one of the two does not answer, or refuses; no version was made.
            ModelUnusable: what arrived is not what was registered.
        """
        from pipeline.registry.copying import log_copy

        with (
            source._of(version.dataset, f"read version {version.version}") as there,
            self._of(version.dataset, "register a copy") as versions,
        ):
            found = versions.made_by(version.training_key)
            made = found or self._register(
                versions,
                version.training_key,
                {METRICS: json.dumps(dict(version.metrics)), **_traveling(version.tags), **tags},
                lambda client, where: log_copy(there, version.version, client, where, dict(tags)),
            )
            if versions.client.get_run(made.run_id).info.status != "FINISHED":
                versions.client.set_terminated(made.run_id, "FINISHED")
            return made, found is None

    def copies(self, dataset: str) -> dict[int, list[str]]:
        """By version: versions of other registered models that share its files, as MLflow's own copies do."""
        from pipeline.registry import removal

        with self._of(dataset, "look for copies") as versions:
            return {v.version: removal.copies(versions, v.run_id) for v in versions.all()}

    def prune(self, dataset: str, going: Collection[int], *, dry_run: bool = False) -> list[Removal]:
        """Remove versions, and with their files every run that no version is left of. What has an alias stays.

        A version goes first, so that nobody promotes what is half gone. Interrupted, the same call again ends the same.

        Args:
            going: numbers of versions.
            dry_run: change nothing, return what would go.

        Raises:
            RegistryUnreachable: MLflow does not answer, or refuses; what went until then is gone.
        """
        from pipeline.registry import removal

        with self._of(dataset, "remove versions") as versions:
            return removal.prune(versions, going, dry_run=dry_run)

    @contextmanager
    def _of(self, dataset: str, attempt: str) -> Iterator[Versions]:
        with self._connection.asking(f"{attempt} of {dataset}") as client:
            yield self._versions(client, dataset)

    def _versions(self, client: MlflowClient, dataset: str) -> Versions:
        return Versions(client, dataset, self._prefix, self._connection.uri)

    def _make(self, versions: Versions, run: TrainingRun) -> ModelVersion:
        """Log a training and register it."""
        tags = {
            **run.tags,
            METRICS: json.dumps(dict(run.metrics)),
            DIGEST: runs.digest(run.detector),
        }
        return self._register(
            versions, run.training_key, tags, lambda client, where: runs.log_run(client, where, run)
        )

    def _register(
        self,
        versions: Versions,
        key: str,
        tags: Mapping[str, str],
        log: Callable[[MlflowClient, str], LoggedModel],
    ) -> ModelVersion:
        """Log a model and make it a version. The version is the last thing made, in one request with its key."""
        client = versions.client
        experiment_id = self._experiment(versions)
        unfinished = f"tags.{KEY} = '{key}' and attributes.status = 'RUNNING'"
        for dead in client.search_runs([experiment_id], unfinished):
            runs.abandon(client, dead.info.run_id, "its process ended before the model was registered")
        model = log(client, experiment_id)
        tolerating(client.create_registered_model, versions.name, codes=EXISTS)
        number = client.create_model_version(
            versions.name,
            model.artifact_location,
            model.source_run_id,
            {**tags, KEY: key},
            model_id=model.model_id,
        ).version
        link = json.dumps([{"name": versions.name, "version": number}])
        client.set_logged_model_tags(model.model_id, {"mlflow.modelVersions": link})  # for MLflow's pages
        first = versions.made_by(key)
        assert first is not None  # noqa: S101  # just made
        if first.version != int(number):  # two processes with the same training: the first version counts
            client.delete_model_version(versions.name, number)
            runs.abandon(client, str(model.source_run_id), f"version {first.version} is of the same training")
        return first

    def _experiment(self, versions: Versions) -> str:
        client, name = versions.client, versions.experiment
        found = client.get_experiment_by_name(name)
        if found is None:
            location = f"{self._artifacts}/{versions.dataset}" if self._artifacts else None
            tolerating(client.create_experiment, name, location, codes=EXISTS)
            found = client.get_experiment_by_name(name)
        assert found is not None  # noqa: S101  # just made, here or by another process
        return str(found.experiment_id)

    def _download(self, version: ModelVersion, draft: Path) -> Path:
        from mlflow.artifacts import download_artifacts, list_artifacts

        versions = self._versions(self._connection.client, version.dataset)
        source = versions.client.get_model_version_download_uri(versions.name, str(version.version))
        uri, tracking_uri = f"{source}/{runs.DETECTOR}", self._connection.uri
        stored = f"{version.dataset} version {version.version}: {uri}"
        if not list_artifacts(artifact_uri=uri, tracking_uri=tracking_uri):
            raise ModelUnusable(f"{stored} is gone; promote another version")
        copied = Path(download_artifacts(artifact_uri=uri, dst_path=str(draft), tracking_uri=tracking_uri))
        if runs.digest(copied) != version.tags.get(DIGEST):
            raise ModelUnusable(f"{stored} is not what was registered; promote another version")
        return copied


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _arrival(
    what: str, version: ModelVersion, replaced: ModelVersion | None, at: str, by: str, reason: str
) -> str:
    """How a version comes to serve, on what evidence."""
    return json.dumps({
        "what": what,
        "at": at,
        "version": version.version,
        "replaced": replaced.version if replaced else None,
        "by": by,
        "reason": reason,
        "decision": version.tags.get("decision", ""),
        "evaluated_at": version.tags.get("evaluated_at", ""),
    })


def _traveling(tags: Mapping[str, str]) -> dict[str, str]:
    """A version's tags as a copy has them: what was decided of it was about another place."""
    return {
        f"source.{name}" if name.startswith(OF_ITS_PLACE) else name: value for name, value in tags.items()
    }


def _settle(
    versions: Versions,
    champion: ModelVersion,
    previous: ModelVersion | None,
    changed: bool,
    arrival: str | None = None,
) -> Promotion:
    """Bring the other aliases and the history in line with the champion."""
    versions.arrived(arrival or champion.tags.get(ARRIVAL))
    versions.point(PREVIOUS, previous)
    if CHALLENGER in champion.aliases:
        versions.point(CHALLENGER, None)
    return Promotion(versions.dataset, champion.version, previous.version if previous else None, changed)
