"""The versions of one dataset's model as MLflow keeps them: look-ups, tags, aliases.

Belongs here: single requests, in our words. Does not: the order in which a promotion makes them (serving.py).
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pipeline.errors import NotReady
from pipeline.registry.entities import ModelVersion

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
KEY, METRICS, DIGEST, REPLACED = "training_key", "calibration_metrics", "detector_digest", "replaced_version"
REVIEW = "review"  # what people's verdicts say of a version
RULE = "flag_rule"  # the rule by which it flags, since when
ARRIVAL = "arrival"  # on a champion: how it came to serve, written before it serves
EVENT = "history."  # the same on the model once it serves; the key has the time, which orders events


class Versions:
    """One dataset's model versions, through MLflow's client."""

    def __init__(self, client: MlflowClient, dataset: str, prefix: str, uri: str) -> None:
        """Note the model PREFIX.DATASET and the experiment PREFIX/DATASET, at the MLflow under `uri`."""
        self.client, self.dataset, self.uri = client, dataset, uri
        self.name, self.experiment = f"{prefix}.{dataset}", f"{prefix}/{dataset}"

    def all(self, condition: str = "") -> list[ModelVersion]:
        """Return every version that meets a condition of MLflow's search, oldest first."""
        model = tolerating(self.client.get_registered_model, self.name)
        aliases = model.aliases.items() if model else ()
        found, token = [], None
        while True:
            page = self.client.search_model_versions(f"name = '{self.name}'{condition}", page_token=token)
            for version in page:  # a search leaves the aliases out
                version.aliases = [alias for alias, named in aliases if int(named) == int(version.version)]
                found.append(self._read(version))
            if not (token := page.token):
                return sorted(found, key=lambda version: version.version)

    def place(self) -> str | None:
        """Return the address that new models are logged under; None before the first one."""
        found = self.client.get_experiment_by_name(self.experiment)
        return str(found.artifact_location) if found else None

    def made_by(self, training_key: str) -> ModelVersion | None:
        """Return the version of a training; the first one, should there be several."""
        return next(iter(self.all(f" and tags.{KEY} = '{training_key}'")), None)

    def find(self, which: str | int) -> ModelVersion | None:
        """Return a version by its alias or number; None where there is none."""
        by_alias = isinstance(which, str)
        ask = self.client.get_model_version_by_alias if by_alias else self.client.get_model_version
        found = tolerating(ask, self.name, str(which))
        return self._read(found) if found else None

    def known(self, which: str | int) -> ModelVersion:
        """Return a version by its alias or number.

        Raises:
            NotReady: there is none.
        """
        if found := self.find(which):
            return found
        wanted = which if isinstance(which, str) else f"version {which}"
        there = ", ".join(str(version.version) for version in self.all())
        raise NotReady(f"{self.dataset} has no {wanted}; versions: {there or 'none, train first'}")

    def before(self, champion: ModelVersion | None) -> ModelVersion | None:
        """Return the version that a champion replaced."""
        replaced = champion.tags.get(REPLACED) if champion else None
        return self.find(int(replaced)) if replaced else None

    def point(self, alias: str, version: ModelVersion | None) -> None:
        """Set an alias; None removes it."""
        if version is not None:
            self.client.set_registered_model_alias(self.name, alias, str(version.version))
        else:
            tolerating(self.client.delete_registered_model_alias, self.name, alias)

    def tag(self, version: ModelVersion, **tags: str | int | None) -> None:
        """Set tags; None removes one."""
        for key, value in tags.items():
            if value is not None:
                self.client.set_model_version_tag(self.name, str(version.version), key, str(value))
            elif key in version.tags:
                self.client.delete_model_version_tag(self.name, str(version.version), key)

    def arrived(self, arrival: str | None) -> None:
        """Record for good how the champion came to serve; recorded again, it changes nothing."""
        if arrival:
            event = json.loads(arrival)
            key = (
                f"{EVENT}{event['at'].partition('+')[0]}.{event['version']}"  # MLflow allows no plus in a key
            )
            self.client.set_registered_model_tag(self.name, key, arrival)

    def events(self) -> list[dict[str, Any]]:
        model = tolerating(self.client.get_registered_model, self.name)
        tags = dict(model.tags) if model else {}
        return [json.loads(tags[key]) for key in sorted(tags) if key.startswith(EVENT)]

    def _read(self, version: Any) -> ModelVersion:
        tags = dict(version.tags)
        return ModelVersion(
            dataset=self.dataset,
            version=int(version.version),
            run_id=version.run_id or "",
            training_key=tags.pop(KEY, ""),
            aliases=tuple(sorted(version.aliases)),
            metrics=json.loads(tags.pop(METRICS, "{}")),
            tags=tags,
            created_at=datetime.fromtimestamp(version.creation_timestamp / 1000, UTC),
        )


def tolerating(
    call: Any, *args: Any, codes: tuple[str, ...] = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
) -> Any:
    """Return the call's result; None where MLflow answers with one of these error codes."""
    from mlflow.exceptions import MlflowException

    try:
        return call(*args)
    except MlflowException as fault:
        if fault.error_code not in codes:
            raise
        return None
