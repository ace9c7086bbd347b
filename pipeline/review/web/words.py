"""What the pages call things.

Belongs here: names of verdicts, states and filters for people. Does not: what they mean (pipeline/verdicts.py).
"""

from __future__ import annotations

VERDICT_NAMES = {
    "anomaly": "anomaly",
    "normal": "normal",
    "expected_change": "expected change",
    "data_error": "data error",
    "unsure": "unsure",
}
WORDS = {
    **VERDICT_NAMES,
    "open": "open",
    "conflict": "conflict",
    "withdrawn": "withdrawn",
    "flagged": "flagged",
    "sampled": "random sample",
    "cleared": "no longer flagged",
}
FACET_NAMES = {
    "state": "Verdict",
    "driver": "Column",
    "band": "Severity",
    "kind": "Why here",
    "dataset": "Dataset",
    "model_version": "Model version",
    "reviewer": "Reviewer",
}
