"""A version's files, from wherever MLflow keeps them to a folder here.

Belongs here: one whole copy, however many tasks want it, of exactly what was registered. Does not: reading a
detector (pipeline/detection/detector.py).
"""

from __future__ import annotations

import shutil
from pathlib import Path

from pipeline.errors import ModelUnusable
from pipeline.registry import runs
from pipeline.registry.entities import ModelVersion
from pipeline.registry.versions import DIGEST, Versions
from pipeline.storage.scratch import own_name


def place(version: ModelVersion, into: Path) -> Path:
    """Return where a version's copy is, or would be.

    The run's id keeps a recreated registry from being served an older one's version.
    """
    return into / version.dataset / f"{version.version}-{version.run_id}"


def fetch(versions: Versions, version: ModelVersion, folder: Path) -> None:
    """Copy a version's detector to a folder; where another task was quicker, its copy stays.

    Raises:
        ModelUnusable: the stored files are gone, or are not those that were registered.
    """
    draft = folder.with_name(own_name(f".{folder.name}"))
    draft.mkdir(parents=True)
    try:
        _download(versions, version, draft).rename(folder)
    except OSError:
        if not folder.exists():  # else another task was quicker
            raise
    finally:
        shutil.rmtree(draft)


def _download(versions: Versions, version: ModelVersion, draft: Path) -> Path:
    from mlflow.artifacts import download_artifacts, list_artifacts

    source = versions.client.get_model_version_download_uri(versions.name, str(version.version))
    uri, tracking_uri = f"{source}/{runs.DETECTOR}", versions.uri
    stored = f"{version.dataset} version {version.version}: {uri}"
    if not list_artifacts(artifact_uri=uri, tracking_uri=tracking_uri):
        raise ModelUnusable(f"{stored} is gone; promote another version")
    copied = Path(download_artifacts(artifact_uri=uri, dst_path=str(draft), tracking_uri=tracking_uri))
    if runs.digest(copied) != version.tags.get(DIGEST):
        raise ModelUnusable(f"{stored} is not what was registered; promote another version")
    return copied
