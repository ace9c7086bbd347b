"""The values of a column: as numbers, as text, and one of them for a reader. Needs no torch.

Belongs here: one column by itself. Does not: what a model sees of it (features.py).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.config.columns import Column

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]


def as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return values as categories are named."""
    return column.cast(pa.string())


def floats(column: pa.ChunkedArray) -> Floats:
    """Return numbers of any type as float64; missing ones become NaN. (n_records,)"""
    values = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return np.asarray(values, np.float64)


def describe(value: Any, column: Column) -> str:
    """Format a cell for a reader."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "missing"
    if isinstance(value, bool):
        return str(value).lower()
    if value == "":
        return "(empty)"
    if column.is_quantity and not isinstance(value, str):
        return f"{float(value):.6g}" if column.type != "int" else f"{round(value):d}"
    if isinstance(value, float):  # a code, named as categories are, not rounded
        return str(as_text(pa.chunked_array([[value]]))[0].as_py())
    return str(value)
