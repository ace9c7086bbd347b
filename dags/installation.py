"""The installation as a task has it: with its share of the cores, and with Airflow's mail.

Belongs here: what differs from the installation of a shell. Does not: how cores are shared (slots.py), or how
Airflow sends a message (mail.py). Nothing heavy is imported outside the function: every parse of every DAG
file passes here.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.installation import Installation


def installation() -> Installation:
    """Return the environment's installation, for a task."""
    from dags import mail
    from dags.slots import with_its_share
    from pipeline.config.settings import load_settings
    from pipeline.installation import Installation

    settings = with_its_share(load_settings())
    return Installation(settings, post=partial(mail.post, settings))
