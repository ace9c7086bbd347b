"""What a task read and wrote, reported to whoever collects OpenLineage's events from this Airflow.

Belongs here: the facts (pipeline/steps/lineage.py) in OpenLineage's terms, through the public functions of
Airflow's provider. Does not: who receives them, which is Airflow's configuration ([openlineage] transport).
Where that names nobody, or the provider is not installed, nothing is looked up or imported. A fault in
reporting lineage fails no task.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openlineage.client.event_v2 import InputDataset, OutputDataset

    from pipeline.steps.lineage import Lineage, Place

log = logging.getLogger("vaewatch")
FactsOf = Callable[..., "Lineage"]
SOURCE = "vaewatch"


def tell(facts: FactsOf, *of: Any) -> None:
    """Add what a step read and wrote to the running task's event.

    Args:
        facts: a function of pipeline.steps.lineage.
        of: its arguments after the installation.
    """
    if not _is_asked():
        return
    from airflow.providers.openlineage.api import emit_dataset_lineage

    from pipeline.errors import VaewatchError
    from pipeline.installation import Installation

    try:
        found = facts(Installation(), *of)
    except VaewatchError as fault:
        log.warning("this task reports no lineage: %s", fault)
        return
    if found.inputs or found.outputs:
        emit_dataset_lineage(
            inputs=[_read(place) for place in found.inputs],
            outputs=[_written(place) for place in found.outputs],
        )


def _is_asked() -> bool:
    try:
        # the provider's plugin asks the same; the public is_openlineage_active imports for a second before it
        # says no
        from airflow.providers.openlineage import conf
    except ImportError:
        return False
    return not conf.is_disabled()


def _read(place: Place) -> InputDataset:
    from openlineage.client.event_v2 import InputDataset
    from openlineage.client.facet_v2 import base_subset_dataset as subset

    part = _part(place)
    said: dict[str, Any] = {"subset": subset.InputSubsetInputDatasetFacet(part)} if part else {}
    return InputDataset(place.namespace, place.name, said, facets=_facets(place))


def _written(place: Place) -> OutputDataset:
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import base_subset_dataset as subset
    from openlineage.client.facet_v2 import output_statistics_output_dataset as statistics

    part, n_records = _part(place), place.n_records
    said: dict[str, Any] = {"subset": subset.OutputSubsetOutputDatasetFacet(part)} if part else {}
    if n_records is not None:
        said["outputStatistics"] = statistics.OutputStatisticsOutputDatasetFacet(rowCount=n_records)
    return OutputDataset(place.namespace, place.name, said, facets=_facets(place))


def _part(place: Place) -> Any:
    """Return the files or batches that are meant, or None for all."""
    from openlineage.client.facet_v2 import base_subset_dataset as subset

    if place.files:
        return subset.LocationSubsetCondition([*place.files])
    batches = [
        subset.Partition({"batch_id": name}, fingerprint) for name, fingerprint in place.batches.items()
    ]
    return subset.PartitionSubsetCondition(batches) if batches else None


def _facets(place: Place) -> dict[str, Any]:
    from openlineage.client.facet_v2 import dataset_version_dataset, tags_dataset

    found: dict[str, Any] = {}
    if place.version:
        found["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(place.version)
    if place.tags:
        tags = [tags_dataset.TagsDatasetFacetFields(*tag, SOURCE) for tag in place.tags.items()]
        found["tags"] = tags_dataset.TagsDatasetFacet(tags)
    return found
