"""Challenger against champion, on records that neither has seen: what was measured, and what follows from it.

Belongs here: pure functions over tables and detectors. `measure` gives Evidence, `decide` a Decision with its
reasons. Does not: reading records (records/holdout.py), or acting on a decision (steps/). Importing this
package imports nothing heavy.
"""

from pipeline.evaluation.decision import Decision, Finding
from pipeline.evaluation.evidence import Churn, Difference, Evidence, Excess, Measured, Share
from pipeline.evaluation.judging import decide

__all__ = ["Churn", "Decision", "Difference", "Evidence", "Excess", "Finding", "Measured", "Share", "decide"]
