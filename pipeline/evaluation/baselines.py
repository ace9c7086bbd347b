"""Two simple models of the same records that every version must equal: probabilistic PCA, IsolationForest.

Belongs here: their fit and their scores. Does not: comparing them (measurement.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from pipeline.detection.features import Features
from vae_core import fit_ppca

MOST_LEARNED = 4_000  # records, enough for both
FARTHEST = 30.0  # standard deviations
MOST_VALUES = 30  # of a categorical column; the rare ones share a place
STEPS = 30

Array = np.ndarray[Any, np.dtype[Any]]


def fitted(
    features: Features, learned: pa.Table, n_latents: int
) -> Mapping[str, Callable[[pa.Table], Array]]:
    """Return each baseline's scoring function by name; a higher score is more anomalous."""
    from sklearn.ensemble import IsolationForest

    seen = _Matrix(features)
    known = seen(_thinned(learned))
    linear = fit_ppca(torch.from_numpy(known), max(1, min(n_latents, known.shape[1] - 1)), steps=STEPS)
    forest = IsolationForest(random_state=0, n_estimators=100).fit(np.nan_to_num(known))
    return {
        "probabilistic PCA": lambda table: linear.surprise(torch.from_numpy(seen(table))).numpy(),
        "IsolationForest": lambda table: -forest.score_samples(np.nan_to_num(seen(table))),
    }


def _thinned(table: pa.Table) -> pa.Table:
    return table.take(pa.array(range(0, table.num_rows, -(-table.num_rows // MOST_LEARNED))))


class _Matrix:
    """Numbers as the model reads them, categories one-hot. (n_records, n_places), NaN where missing."""

    def __init__(self, features: Features) -> None:
        self.features = features
        self.sizes = [min(MOST_VALUES, max(1, len(v))) for v in features.categorical.values()]

    def __call__(self, table: pa.Table) -> Array:
        records = self.features.records(table)
        parts = [records.numeric.double().numpy().clip(-FARTHEST, FARTHEST)]
        for i, size in enumerate(self.sizes):
            codes = records.categorical[:, i].numpy()
            hot = (np.minimum(codes, size)[:, None] == np.arange(size + 1)).astype(np.float64)
            hot[codes < 0] = np.nan
            parts.append(hot)
        return np.concatenate(parts, axis=1)
