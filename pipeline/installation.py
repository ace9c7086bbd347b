"""One place that opens everything: settings, datasets, ledger, tables, registry.

Belongs here: which object stands behind a name, opened when first asked for. Does not: what is done with it
(steps/).
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from pipeline import mail
from pipeline.config.dataset import Dataset
from pipeline.config.files import load_dataset, load_datasets
from pipeline.config.settings import Settings, load_settings
from pipeline.errors import ConfigError
from pipeline.misread import meant
from pipeline.storage import scratch, turn
from pipeline.storage.ledger import Ledger
from pipeline.storage.tables import Tables

if TYPE_CHECKING:
    from pipeline.detection.detector import Detector
    from pipeline.registry import ModelVersion, Registry


Post = Callable[[Sequence[str], str, str], None]  # to, subject, text; raises NotDelivered


class Installation:
    """An installation as the environment describes it.

    Attributes:
        post: sends an e-mail.
    """

    def __init__(self, settings: Settings | None = None, *, post: Post | None = None) -> None:
        self.settings = settings or load_settings()
        self.post = post or partial(mail.post, self.settings)

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger(self.settings.ledger)

    @cached_property
    def registry(self) -> Registry:
        from pipeline.registry import Registry

        settings = self.settings
        registry = Registry(settings.tracking, settings.home / "mlartifacts", settings.registry_prefix)
        registry.prepare()
        return registry

    def datasets(self) -> dict[str, Dataset]:
        return load_datasets(self.settings.datasets)

    def dataset(self, name: str) -> Dataset:
        """Return one dataset.

        Raises:
            ConfigError: there is no such dataset, or its file has faults.
        """
        path = self.settings.datasets / f"{name}.yaml"
        dataset = load_dataset(path) if path.exists() else self.datasets().get(name)
        if dataset is None or dataset.name != name:
            if dataset is not None:
                raise ConfigError(
                    f"no dataset {name!r}: {path} calls itself {dataset.name!r} (`dataset:`); rename one, as file and "
                    "dataset share a name"
                )
            raise ConfigError(
                f"no dataset {name!r} in {self.settings.datasets}: {meant(name, self.datasets())} "
                "(a new one's file is written by `vaewatch init FOLDER`)"
            )
        return dataset

    def tables(self, dataset: Dataset) -> Tables:
        folder = Path(dataset.storage).expanduser() if dataset.storage else self.settings.home / "tables"
        return Tables((self.settings.home / folder if not folder.is_absolute() else folder) / dataset.name)

    def model(self, version: ModelVersion) -> Path:
        """Return the folder of a version's files, fetching them if they are not here yet.

        Raises:
            ModelUnusable: they are gone, or not what was registered.
        """
        return self.registry.fetch(version, self.settings.home / "models")

    def detector(self, version: ModelVersion) -> Detector:
        """Load a version's detector.

        Raises:
            ModelUnusable: it is gone, or cannot be read.
        """
        from pipeline.detection.detector import Detector

        return Detector.load(self.model(version))

    def page(self, dataset: Dataset, batch_id: str) -> Path:
        """Return the folder of a batch's Checkpoint result and Data Docs."""
        return self.settings.home / "reports" / dataset.name / batch_id

    def training_page(self, dataset: Dataset, training_key: str) -> Path:
        return self.settings.home / "trainings" / dataset.name / f"{training_key[:12]}.html"

    def model_page(self, dataset: str, version: int) -> str | None:
        """Return the address of a version in MLflow's pages.

        None where neither `mlflow_page` nor the tracking URI is a web address, or where it holds a password.
        """
        model = quote(f"{self.settings.registry_prefix}.{dataset}")
        return self._mlflow_page(f"models/{model}/versions/{version}")

    def run_page(self, run_id: str) -> str | None:
        """Return the address of a run in MLflow's pages, or None as in `model_page`."""
        return self._mlflow_page(f"runs/{run_id}")

    def _mlflow_page(self, place: str) -> str | None:
        pages = self.settings.mlflow_page or self.settings.tracking
        if not pages.startswith(("http://", "https://")) or "@" in pages:
            return None
        return f"{pages.rstrip('/')}/#/{place}"

    @contextmanager
    def scratch(self, dataset: Dataset, purpose: str) -> Iterator[Path]:
        """Yield a folder of our own and remove it afterwards, and first those that killed processes left."""
        self.tidy(dataset)
        folder = self.settings.home / "work" / dataset.name / scratch.own_name(purpose)
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def turn(self, dataset: Dataset, waits: Callable[[str], None]) -> AbstractContextManager[None]:
        """Have a dataset to oneself among the runs of this home folder. waits: as in turn.py."""
        return turn.turn(self.settings.home / "locks" / dataset.name, waits)

    def tidy(self, dataset: Dataset) -> None:
        """Remove the folders that killed processes left behind."""
        for place in ("work", "models"):
            for folder in (self.settings.home / place / dataset.name).glob(scratch.PATTERN):
                if scratch.is_abandoned(folder):
                    shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        with contextlib.suppress(KeyError):
            self.__dict__.pop("ledger").close()
