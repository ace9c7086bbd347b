"""Model versions: log and register one, say which serves, fetch it, move the champion there and back.

Belongs here: the only access to MLflow, whose objects do not leave this package. Does not: whether a version
deserves to serve (evaluation/), or what a detector holds (detection/detector.py). Importing this package
imports no MLflow.

This module is the interface; the work is in the modules beside it: making a version (registration.py,
runs.py, copying.py), which one serves (serving.py), its files (fetching.py), and its end (removal.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pipeline.errors import ConfigError, ModelUnusable
from pipeline.registry import fetching, registration, runs, serving
from pipeline.registry.connection import Connection
from pipeline.registry.entities import (
    DOUBTS,
    EVALUATION,
    NEWEST_BATCH,
    DatasetInput,
    ModelVersion,
    Promotion,
    Removal,
    TrainingRun,
)
from pipeline.registry.versions import CHALLENGER, CHAMPION, REVIEW, RULE, Versions

__all__ = [
    "DOUBTS",
    "EVALUATION",
    "NEWEST_BATCH",
    "DatasetInput",
    "ModelVersion",
    "Promotion",
    "Registry",
    "Removal",
    "TrainingRun",
]


class Registry:
    """The model versions of every dataset, at one MLflow."""

    def __init__(
        self, tracking_uri: str, artifacts: Path | str | None = None, prefix: str = "vaewatch"
    ) -> None:
        """Note where MLflow is; it is imported and contacted at the first call.

        Args:
            artifacts: folder or address for models and plots, where MLflow is a database; by default beside a
                SQLite file. A tracking server (http) decides for itself.
            prefix: models are PREFIX.DATASET, experiments PREFIX/DATASET: environments may share an MLflow.

        Raises:
            ConfigError: MLflow keeps no model registry at such an address, or models have no place.
        """
        self._connection = Connection(tracking_uri)
        database = self._connection.database
        if artifacts is None and database is not None:
            artifacts = database.parent / "mlartifacts"
        if artifacts is None and not self._connection.is_server:
            raise ConfigError(
                f"models cannot be stored beside {self._connection.shown}: give a folder for them"
            )
        if isinstance(artifacts, Path):
            artifacts = artifacts.absolute().as_uri()
        self._artifacts = None if self._connection.is_server else artifacts
        self._prefix = prefix
        self.address = self._connection.shown  # without credentials
        self.shown = f"{prefix} at {self.address}"

    def name(self, dataset: str) -> str:
        """Return MLflow's name for a dataset's model."""
        return f"{self._prefix}.{dataset}"

    def prepare(self) -> None:
        """Create or upgrade MLflow's database; several processes may do so at once.

        Done already, it reads two files.

        Raises:
            RegistryUnreachable: the database does not answer.
        """
        with self._connection.telling("prepare its database"):
            self._connection.prepare()

    def register(self, run: TrainingRun) -> ModelVersion:
        """Log a training and make it a version.

        The same training again gives the same version and logs nothing.

        Raises:
            RegistryUnreachable: MLflow does not answer, or refuses; no version was made.
            ModelUnusable: the model cannot score its own example; no version was made.
        """
        with self._of(run.dataset, "register a model") as versions:
            return registration.register_training(versions, self._artifacts, run)

    def made_by(self, dataset: str, training_key: str) -> ModelVersion | None:
        """Return the version that a training made; None where it was not registered."""
        with self._of(dataset, "look up a training") as versions:
            return versions.made_by(training_key)

    def champion(self, dataset: str) -> ModelVersion | None:
        """Return the version that serves; None where none does yet."""
        with self._of(dataset, "look up the champion") as versions:
            return versions.find(CHAMPION)

    def challenger(self, dataset: str) -> ModelVersion | None:
        """Return the version that may become champion."""
        with self._of(dataset, "look up the challenger") as versions:
            return versions.find(CHALLENGER)

    def previous(self, dataset: str) -> ModelVersion | None:
        """Return the version that a rollback would bring back."""
        with self._of(dataset, "look up the previous champion") as versions:
            return versions.before(versions.find(CHAMPION))

    def version(self, dataset: str, number: int) -> ModelVersion:
        """Return one version.

        Raises:
            NotReady: there is no such version.
        """
        with self._of(dataset, f"look up version {number}") as versions:
            return versions.known(number)

    def versions(self, dataset: str) -> list[ModelVersion]:
        """Return every version, oldest first."""
        with self._of(dataset, "list the versions") as versions:
            return versions.all()

    def kept_elsewhere(self, dataset: str) -> tuple[Path, Path] | None:
        """Return the folder that MLflow keeps a dataset's models in, and the one that they belong in now.

        MLflow records whole addresses: a home folder that was moved or copied leads to its old place. None
        where both are the same, or where the place is not of our choosing.
        """
        if not (self._artifacts or "").startswith("file:"):
            return None
        with self._of(dataset, "look up where the models are kept") as versions:
            recorded = versions.place()
        if recorded is None or not recorded.endswith(f"/mlartifacts/{dataset}"):
            return None
        there, belongs = (_folder(uri) for uri in (recorded, f"{self._artifacts}/{dataset}"))
        return None if there.resolve() == belongs.resolve() else (there, belongs)

    def fetch(self, version: ModelVersion, into: Path) -> Path:
        """Return the folder of a version's detector, copied under `into` once; safe to call concurrently.

        Raises:
            ModelUnusable: the stored files are gone, or are not those that were registered.
        """
        folder = fetching.place(version, into)
        if not folder.exists():
            with self._of(version.dataset, f"fetch version {version.version}") as versions:
                fetching.fetch(versions, version, folder)
        return folder

    def note(self, dataset: str, version: int) -> tuple[ModelVersion, dict[str, Any]]:
        """Return a version, and what its training was made from.

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

    def set_challenger(self, dataset: str, version: int | None) -> None:
        """Name the version that may become champion, or none; the champion itself is left alone.

        Raises:
            NotReady: there is no such version.
        """
        with self._of(dataset, f"make {f'version {version}' if version else 'none'} challenger") as versions:
            chosen = versions.known(version) if version is not None else None
            if chosen is None or CHAMPION not in chosen.aliases:
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
            return serving.promote(versions, version, by=by, reason=reason)

    def reject(self, dataset: str, version: int, *, by: str, reason: str) -> bool:
        """Record that somebody does not want a version to serve.

        It is no longer challenger. The champion is left alone.

        Returns:
            False where it serves, or this was on record already: nothing changed.

        Raises:
            NotReady: there is no such version.
        """
        with self._of(dataset, f"reject version {version}") as versions:
            return serving.reject(versions, version, by=by, reason=reason)

    def rollback(self, dataset: str, *, by: str, reason: str) -> Promotion:
        """Bring back the champion before this one.

        There is one step back, not a chain. A second rollback is refused, so that a command given twice can
        neither restore the version that was just withdrawn nor go further than was meant. To go elsewhere,
        promote a version by its number.

        Raises:
            NotReady: there is no champion, or none before it.
        """
        with self._of(dataset, "roll back the champion") as versions:
            return serving.rollback(versions, by=by, reason=reason)

    def history(self, dataset: str) -> list[dict[str, Any]]:
        """Return every promotion and rollback, oldest first.

        Keys: what, at, version, replaced, by, reason, decision, evaluated_at.
        """
        with self._of(dataset, "read the history") as versions:
            return versions.events()

    def log_evaluation(
        self, dataset: str, version: int, evaluation: Mapping[str, Any], tags: Mapping[str, str]
    ) -> None:
        """Keep what a version was judged by.

        The whole goes into evaluation.json of its run, then the tags say that it is there.

        Raises:
            NotReady: there is no such version.
        """
        with self._of(dataset, f"log the evaluation of version {version}") as versions:
            chosen = versions.known(version)
            versions.client.log_text(chosen.run_id, json.dumps(evaluation, indent=1, default=str), EVALUATION)
            versions.tag(chosen, **tags)

    def evaluation(self, version: ModelVersion) -> dict[str, Any] | None:
        """Return what a version was judged by, as logged; None where it was not judged, or that is gone."""
        if not version.run_id:
            return None
        with self._of(version.dataset, f"read the evaluation of version {version.version}") as versions:
            return runs.read_json(versions.client, version.run_id, EVALUATION)

    def amend(self, version: ModelVersion, name: str, change: Callable[[str], str]) -> str | None:
        """Change a text logged with a version's run, and return the result; None where there is none."""
        with self._of(version.dataset, f"amend {name} of version {version.version}") as versions:
            text = runs.read_text(versions.client, version.run_id, name)
            amended = None if text is None else change(text)
            if amended is not None and amended != text:
                versions.client.log_text(version.run_id, amended, name)
            return amended

    def log_newest_batch(self, version: ModelVersion, page: str) -> None:
        """Log the page of the newest batch that a version scored with its run, replacing the one before.

        Raises:
            RegistryUnreachable, StorageFailed: the one before is still there.
        """
        with self._of(version.dataset, f"log the newest batch of version {version.version}") as versions:
            versions.client.log_text(version.run_id, page, NEWEST_BATCH)

    def log_review(self, dataset: str, version: int, metrics: Mapping[str, float]) -> bool:
        """Log what verdicts say of a version, as metrics of its run and a tag; False where that was known.

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

    def note_rule(self, version: ModelVersion, told: str) -> None:
        """Tag a version with the rule that it flags by; without a call to MLflow where the tag is there."""
        if version.tags.get(RULE) == told:
            return
        with self._of(version.dataset, f"note the rule of version {version.version}") as versions:
            versions.tag(version, **{RULE: told})

    def copy_from(
        self, source: Registry, version: ModelVersion, tags: Mapping[str, str]
    ) -> tuple[ModelVersion, bool]:
        """Log and register another registry's version here, with its run's evidence and files of its own.

        Where a version of the same training is here already, that one is returned and nothing is logged.

        Args:
            tags: say where it comes from. What a version did where it comes from is kept under `source.`.

        Returns:
            The version here, and whether it is new.

        Raises:
            RegistryUnreachable: one of the two does not answer, or refuses; no version was made.
            ModelUnusable: what arrived is not what was registered.
        """
        from pipeline.registry import copying

        with (
            source._of(version.dataset, f"read version {version.version}") as there,
            self._of(version.dataset, "register a copy") as versions,
        ):
            is_new = versions.made_by(version.training_key) is None
            made = registration.register(
                versions,
                self._artifacts,
                version.training_key,
                copying.tags_of_copy(version, tags),
                lambda client, where: copying.log_copy(there, version.version, client, where, dict(tags)),
            )
            return made, is_new

    def copies(self, dataset: str) -> dict[int, list[str]]:
        """Return by version other registered models' versions that share its files, as MLflow copies do."""
        from pipeline.registry import removal

        with self._of(dataset, "look for copies") as versions:
            return {v.version: removal.copies(versions, v.run_id) for v in versions.all()}

    def prune(self, dataset: str, going: Collection[int], *, dry_run: bool = False) -> list[Removal]:
        """Remove versions, and every run without a version with its files. What has an alias stays.

        A version goes before its files, so that nobody promotes one that is half gone. Interrupted, the same
        call completes it.

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
            yield Versions(client, dataset, self._prefix, self._connection.uri)


def _folder(uri: str) -> Path:
    return Path(unquote(urlsplit(uri).path))
