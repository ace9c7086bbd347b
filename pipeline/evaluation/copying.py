"""Whether a version fits the dataset of another environment.

Belongs here: the other environment as this machine reaches it, and what does not fit. Does not: copying
(registry/).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from pipeline.config.contracts import contract_hash
from pipeline.config.dataset import Dataset
from pipeline.config.settings import PREFIX, TO, Settings
from pipeline.detection.detector import Detector
from pipeline.errors import ConfigError
from pipeline.installation import Installation

NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*")


def environment(name: str, here: Settings) -> Installation:
    """Return another environment's installation, from VAEWATCH_TO_<NAME>_<SETTING>.

    Its dataset files are ours unless set.

    Raises:
        ConfigError: no such environment is described, or it is this one.
    """
    prefix = f"{PREFIX}{TO}{name.upper()}_"
    if not NAME.fullmatch(name):
        raise ConfigError(f"--to {name!r}: an environment's name is letters and digits, like staging")
    given = {key for key in os.environ if key.startswith(prefix)}
    if not given & {f"{prefix}TRACKING_URI", f"{prefix}HOME", f"{prefix}REGISTRY_PREFIX"}:
        raise ConfigError(
            f"--to {name}: nothing says where it is; set {prefix}TRACKING_URI to its MLflow, or {prefix}HOME to its home folder, "
            f"and {prefix}DATASETS if its dataset files are not these"
        )
    there = Settings(_env_prefix=prefix)
    if f"{prefix}DATASETS" not in given:
        there = there.model_copy(update={"datasets": here.datasets})
    if f"{prefix}TRACKING_URI" not in given:
        own = f"sqlite:///{there.home / 'mlflow.db'}" if f"{prefix}HOME" in given else here.tracking
        there = there.model_copy(update={"tracking_uri": own})
    if (there.tracking, there.registry_prefix) == (here.tracking, here.registry_prefix):
        raise ConfigError(
            f"--to {name}: its MLflow and registry prefix are those of this installation; set {prefix}TRACKING_URI or {prefix}REGISTRY_PREFIX to others"
        )
    return Installation(there)


def misfits(folder: Path, promised: str, dataset: Dataset) -> list[str]:
    """Return why a detector's contract, features or derived columns do not fit a dataset. Empty if they do.

    Args:
        folder: of the detector, as the registry keeps it.
        promised: hash of the contract that its training's records kept.

    Raises:
        ModelUnusable: the detector cannot be read.
    """
    detector = Detector.load(folder)
    found = []
    for name in detector.features.columns:
        column = dataset.with_derived.get(name)
        if column is None or column.role == "ignored":
            found.append(f"column {name!r}, which the model reads, is {'ignored' if column else 'not there'}")
    if detector.other_derived(dataset):
        found.append("its derived columns are defined differently")
    if contract_hash(dataset) != promised:
        found.append(
            f"its contract is {contract_hash(dataset)}, the model was trained under {promised or 'an unknown one'}"
        )
    return found
