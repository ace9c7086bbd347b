"""What people said of some records, and what that can add to the loss.

Belongs here: which records are known, and how they pull on a model in training, if the recipe asks for it.
Does not: how a record's loss is computed (objectives.py), how verdicts change the score (feedback.py), or
where they come from (the caller's).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from vae_core.records import Records

_AT_ONCE = 32  # records of each kind per step


@dataclass(frozen=True, eq=False)
class Known:
    """Records that people judged.

    The anomalies must not be among the training records; the normals may be.
    """

    anomalies: Records | None = None
    normals: Records | None = None

    def __bool__(self) -> bool:
        return bool(self.anomalies or self.normals)

    def to(self, device: torch.device | str) -> Known:
        return Known(*(part and part.to(device) for part in (self.anomalies, self.normals)))

    def penalty(
        self, loss: Callable[[Records], Tensor], usual: Tensor, generator: torch.Generator, margin: float
    ) -> Tensor:
        """Return a penalty (n_members,), nats, that pushes anomalies out and keeps normals in.

        With l a record's −ELBO (its reconstruction under another regulariser) and u the minibatch's median,
        an anomaly pays softplus(u + margin − l), which vanishes once it is far out. −ELBO has no upper bound,
        and pushed without end, anomalies would take the networks with them (a hinge as in Hadsell et al.
        2006, eq. 4, smoothed). Normals pay l / 4 on average, proportionally less where there are fewer than
        32, and are never trimmed.

        loss: gives (n_members, n_records) nats. usual: (n_members,), u.
        """
        total = torch.zeros_like(usual)
        if self.anomalies:
            short = usual[:, None] + margin - loss(_some(self.anomalies, generator))
            total = total + functional.softplus(short).mean(dim=1)
        if self.normals:
            share = min(1.0, len(self.normals) / _AT_ONCE) / 4
            total = total + share * loss(_some(self.normals, generator)).mean(dim=1)
        return total


def _some(records: Records, generator: torch.Generator) -> Records:
    n = min(_AT_ONCE, len(records))
    return records[torch.randint(len(records), (n,), generator=generator, device=records.device)]
