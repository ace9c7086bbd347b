"""Is this installation fit to run tonight? Each part is tried, not assumed.

Belongs here: one finding per part, with what to do about a failure. Does not: repairs.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from pipeline.config.dataset import Dataset
from pipeline.config.files import read_datasets
from pipeline.errors import ModelUnusable, RegistryUnreachable, StorageFailed, VaewatchError
from pipeline.installation import Installation

LOW_DISK = 2 << 30
AIRFLOW = "not looked at from here; whether it has the DAGs and their pool: python -m dags check"


def examine() -> list[dict[str, Any]]:
    """Return one finding per part, as {what, ok, found}."""
    try:
        here = Installation()
    except VaewatchError as fault:
        return [{"what": "settings", "ok": False, "found": str(fault)}]
    checks: dict[str, Callable[[], str]] = {
        "home folder": lambda: _home(here),
        "conditional writes": lambda: _exclusive_create(here),
        "ledger": lambda: _ledger(here),
        "registry": lambda: _registry(here),
        "compute": lambda: _compute(here),
    }
    findings = [_tried(what, check) for what, check in checks.items()]
    datasets, faults = read_datasets(here.settings.datasets)
    findings += [_tried(f"dataset {name}", partial(_dataset, here, one)) for name, one in datasets.items()]
    told = {name: one for name, one in datasets.items() if one.review.webhook or one.review.email}
    findings += [_tried(f"messages of {name}", partial(_channels, here, one)) for name, one in told.items()]
    findings += [{"what": "dataset file", "ok": False, "found": fault} for fault in faults]
    if "AIRFLOW_HOME" in os.environ:
        findings.append({"what": "Airflow", "ok": True, "found": AIRFLOW})
    if not datasets and not faults:
        findings.append({
            "what": "datasets",
            "ok": False,
            "found": f"none in {here.settings.datasets}: vaewatch init",
        })
    return findings


def _tried(what: str, check: Callable[[], str]) -> dict[str, Any]:
    try:
        return {"what": what, "ok": True, "found": check()}
    except (VaewatchError, OSError) as fault:
        return {"what": what, "ok": False, "found": str(fault)}


def _home(here: Installation) -> str:
    home = here.settings.home
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=home):
        free = shutil.disk_usage(home).free
    if free < LOW_DISK:
        raise OSError(f"{home} has {free / 2**30:.1f} GiB free, less than {LOW_DISK >> 30}; make room")
    return f"{home}, writable, {free / 2**30:.0f} GiB free"


def _exclusive_create(here: Installation) -> str:
    """Check that no file can be created twice: where one can, Delta loses commits silently."""
    with tempfile.TemporaryDirectory(dir=here.settings.home) as folder:
        path = os.path.join(folder, "once")  # noqa: PTH118
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return "honoured: two writers cannot overwrite each other's commit"
    raise OSError(
        f"{here.settings.home} lets a file be created twice: commits would be lost; use another disk"
    )


def _ledger(here: Installation) -> str:
    here.ledger.current("vaewatch")
    return here.ledger.shown


def _registry(here: Installation) -> str:
    here.registry.versions("vaewatch")
    for name in here.ledger.datasets():
        if found := here.registry.kept_elsewhere(name):
            there, belongs = (folder.parent for folder in found)
            mend = (
                "that folder is still there, so do not use this copy beside the original: it would train into it and prune it"
                if there.is_dir()
                else f"move it back, or make {there} a link to {belongs}"
            )
            raise StorageFailed(
                f"MLflow looks for models in {there}, where this home folder was before, and new ones would go there; {mend}"
            )
    return f"MLflow answers at {here.registry.address}"


def _compute(here: Installation) -> str:
    import torch

    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU (no GPU found)"
    return f"torch {torch.__version__} on {device}, {here.settings.cores} cores"


def _channels(here: Installation, dataset: Dataset) -> str:
    """Check that digests and alerts can leave, as far as that is known without sending one."""
    from pipeline import mail
    from pipeline.notify import digest

    asked = dataset.review
    if asked.webhook:
        digest.address(asked.webhook)
    if asked.email and "AIRFLOW_HOME" not in os.environ:  # where its connection smtp_default will do
        mail.server(here.settings)
    return "digests and alerts have somewhere to go; none was sent to try"


def _dataset(here: Installation, dataset: Dataset) -> str:
    from pipeline.detection.recipe import recipe_of
    from pipeline.incoming.batches import landed, no_delivery_yet
    from pipeline.records.window import order

    recipe_of(dataset)  # loading needs no torch; unchecked, a bad recipe would fail only at night
    if waits := no_delivery_yet(dataset, here.ledger):
        return waits
    if why := _unfit_champion(here, dataset):
        raise ModelUnusable(why)
    found = landed(dataset, here.ledger)
    known = here.ledger.current(dataset.name)
    newest = max((order(known.get(one.batch_id, one.batch_id)) for one in found), default=None)
    named = f", newest {newest[-1]}" if newest else ""
    return f"{len(found)} batches in {dataset.incoming_path}{named}"


def _unfit_champion(here: Installation, dataset: Dataset) -> str:
    """Say why the version that serves cannot score what lands from now on; else empty."""
    from pipeline.steps.serving import unfit

    with suppress(RegistryUnreachable):  # which has a line of its own
        champion = here.registry.champion(dataset.name)
        return unfit(here, dataset, champion) if champion else ""
    return ""
