"""A detector as MLflow loads it: every version stores a copy of this file (models from code, no pickle).

Belongs here: pandas in, pandas out. Does not: how a record is scored (detection/detector.py of the installed
package). vaewatch's own steps do not use this: they fetch the folder and load the Detector.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

if TYPE_CHECKING:
    from pipeline.detection.detector import Detector


class Scorer(PythonModel):
    """Returns anomaly_score, reconstruction, kl_divergence, p_value and severity of each record."""

    detector: Detector

    def load_context(self, context: Any) -> None:
        """Read the detector.

        Raises:
            ModelUnusable: its folder cannot be read.
        """
        from pipeline.detection.detector import Detector  # torch, only where something is scored

        self.detector = Detector.load(Path(context.artifacts["detector"]))

    def predict(self, model_input: pd.DataFrame) -> pd.DataFrame:  # type: ignore[override]  # context is optional
        """Return scores of records, with the index of `model_input`.

        Raises:
            ModelUnusable: a column that the model needs is not there.
        """
        with (
            warnings.catch_warnings()
        ):  # pyarrow 25 reads times from pandas in a way that pandas 3.1 deprecates
            warnings.simplefilter("ignore", DeprecationWarning)
            table = whole_numbers(pa.Table.from_pandas(model_input, preserve_index=False))
        scores: pd.DataFrame = self.detector.score_table(table).to_pandas()
        scores.index = model_input.index
        return scores


def whole_numbers(table: pa.Table) -> pa.Table:
    """Undo what pandas does to integers with missing values.

    1e15 must read as the category 1000000000000000.
    """
    for i, field in enumerate(table.schema):
        if pa.types.is_floating(field.type):
            column = table.column(i)
            integers = pc.cast(column, pa.int64(), safe=False)
            if pc.all(pc.equal(integers.cast(column.type, safe=False), column)).as_py():
                table = table.set_column(i, field.name, integers)
    return table


set_model(Scorer())
