"""One function per step: what a DAG's task and the command line's verb both call.

This module is the interface; the steps are in the modules beside it, which hold the order of effects within a
step and the receipt it returns, not how any part works. A step writes tables or the registry first and the
ledger last: killed anywhere and run again, it ends as if it had never been killed. Heavy libraries are
imported by the step that needs them.
"""

from __future__ import annotations

from pipeline.steps.checking import discover, validate
from pipeline.steps.comparing import compare
from pipeline.steps.evaluating import evaluate, history
from pipeline.steps.keeping import copy, prune, reproduce, version, versions
from pipeline.steps.keys import RANGE, Say
from pipeline.steps.learning import train
from pipeline.steps.releasing import release
from pipeline.steps.running import run, run_all
from pipeline.steps.scoring import score
from pipeline.steps.serving import evidence, promote, reject, rollback

__all__ = [
    "RANGE",
    "Say",
    "compare",
    "copy",
    "discover",
    "evaluate",
    "evidence",
    "history",
    "promote",
    "prune",
    "reject",
    "release",
    "reproduce",
    "rollback",
    "run",
    "run_all",
    "score",
    "train",
    "validate",
    "version",
    "versions",
]
