"""Diffusion time estimation (Livernoche et al. 2024), a rival that PyOD lacks.

A row is as anomalous as the time that a diffusion would need to put it where it is. Two of the paper's
estimators of that time: from neighbours (DTE-NP), and by a network that classifies it (DTE-C). Both are the
best published on ADBench.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn

from tests.bench.adbench import Array, Split

N_STEPS = 400
NOISE = (1.0 - torch.cumprod(1.0 - torch.linspace(1e-4, 1e-2, N_STEPS), dim=0)).sqrt()  # (step,)


@dataclass(frozen=True)
class DteNp:
    """Non-parametric (section 4).

    The posterior of the diffusion's variance given the row is an inverse gamma whose mode is proportional to
    the mean squared distance to the k nearest rows. The paper bins times into 300 steps, which only adds
    ties; the order of the mode itself is used here.
    """

    n_neighbours: int = 5
    cost: float = 0.2

    def settings(self, _protocol: str) -> dict[str, Any]:
        return {"dte-np": self.n_neighbours, "sklearn": version("scikit-learn")}

    def __call__(self, split: Split, _seed: int) -> Array:
        model = NearestNeighbors(n_neighbors=self.n_neighbours).fit(split.train)
        distances, _ = model.kneighbors(None if split.is_same else split.test)
        return np.asarray((distances**2).mean(axis=1))


class Classifier(nn.Module):
    """Probabilities of the bin of time, by the authors' network: dropout after all hidden layers but the
    first.
    """

    def __init__(self, n_columns: int, n_bins: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Linear(n_columns, 256), nn.ReLU()),
            *(nn.Linear(256, 512), nn.ReLU(), nn.Dropout(0.5)),
            *(nn.Linear(512, 256), nn.ReLU(), nn.Dropout(0.5)),
            *(nn.Linear(256, n_bins), nn.Softmax(dim=1)),
        )

    def forward(self, rows: Tensor) -> Tensor:
        return self.layers(rows)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class DteC:
    """The categorical estimator (section 5) with the authors' settings: the expected bin of the time a row
    was diffused.

    As in their code, the noise is added without shrinking the row, and cross-entropy is taken of the
    probabilities.
    """

    n_bins: int = 7
    epochs: int = 400
    minibatch: int = 64
    cost: float = 41.0

    def settings(self, _protocol: str) -> dict[str, Any]:
        return {"dte-c": [self.n_bins, self.epochs, self.minibatch], "torch": torch.__version__.split("+")[0]}

    def __call__(self, split: Split, seed: int) -> Array:
        torch.manual_seed(seed)
        model = self.fit(torch.from_numpy(split.train).float())
        with torch.no_grad():
            bins = model.eval()(torch.from_numpy(split.test).float())
        return (bins.double() @ torch.arange(self.n_bins, dtype=torch.double)).numpy()  # type: ignore[no-any-return]

    def fit(self, rows: Tensor) -> Classifier:
        model = Classifier(rows.shape[1], self.n_bins)
        optimiser = torch.optim.Adam(model.parameters(), lr=1e-4, weight_decay=5e-4, fused=True)
        for _ in range(self.epochs):
            for chosen in torch.randperm(len(rows)).split(self.minibatch):
                times = torch.randint(N_STEPS, chosen.shape)
                diffused = rows[chosen] + NOISE[times, None] * torch.randn(len(chosen), rows.shape[1])
                loss = nn.functional.cross_entropy(model(diffused), times * self.n_bins // N_STEPS)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        return model
