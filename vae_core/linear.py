"""A linear model beside the networks: a full-covariance Gaussian over a record's numbers, given its context.

Belongs here: fitting it so that anomalies among the training records do not pull it, and how it sees a
record, with missing cells left out exactly. Does not: how its surprise enters the score (scoring.py).

It is probabilistic PCA with as many components as columns (Tipping & Bishop 1999), fitted by least squares
trimmed as in the minimum covariance determinant (Rousseeuw & Van Driessen 1999, section 3.1: concentration
steps). Networks learn whatever is frequent, clusters of anomalies too; this model cannot, and knows what the
bulk of the records is like.
"""

# B records, N numbers of a record, C context numbers and the intercept

from __future__ import annotations

import torch
from torch import Tensor, nn

from vae_core.layers import even_product
from vae_core.records import Records

_MOST_CELLS = 2**23  # of the records looked at, the first ones
_STEPS = 10  # concentration steps; they settle in fewer
_SHRINK = 0.5  # weight of the diagonal covariance, times columns over records
_MOST_SOLVED = 32  # conjugate-gradient steps for missing cells: exact up to that many cells
_MORE_SOLVED = 4  # steps beyond the number of missing cells, against rounding
_RESCALED = (0.5, 10.0)  # bounds of the factor on squared distances
_TINY = 1e-12


class LinearGaussian(nn.Module):
    """p(x | context) = N(context · coefficients, precision⁻¹) over the columns ``modelled``.

    coefficients: (n_context + 1, n_numeric), the last row the intercept. precision: (n_numeric, n_numeric), 0
    for columns that are not modelled. weight: () of its surprise in the score. It is n / (n + n_training)
    with n the recipe's linear_records, because few records say too little to trust networks alone.
    """

    coefficients: Tensor
    precision: Tensor
    modelled: Tensor
    weight: Tensor

    def __init__(self, modelled: tuple[bool, ...], n_context: int) -> None:
        super().__init__()
        self.register_buffer("modelled", torch.tensor(modelled, dtype=torch.bool), persistent=False)
        self.register_buffer("coefficients", torch.zeros(n_context + 1, len(modelled)))
        self.register_buffer("weight", torch.zeros(()))
        self.register_buffer("precision", torch.zeros(len(modelled), len(modelled)))

    def surprise(self, records: Records) -> Tensor:
        """Return each column's part of half the squared Mahalanobis distance, (n_records, n_numeric) nats.

        The parts x_j (P x)_j / 2 add up to −log p(observed cells) and a constant; they are 0 where missing. A
        missing cell is put where (P x)_j = 0, its conditional mean, which leaves exactly the distance of the
        others under their marginal distribution.
        """
        present = self._present(records)
        residual = (records.values - even_product(self._design(records), self.coefficients)) * present
        if not records.numeric.shape[1]:
            return residual
        residual = fill(residual, self.modelled.to(present.dtype) - present, self.precision)
        return 0.5 * residual * even_product(residual, self.precision) * present

    def _present(self, records: Records) -> Tensor:
        return records.observed[:, : len(self.modelled)] * self.modelled

    @staticmethod
    def _design(records: Records) -> Tensor:
        return torch.cat([records.context_values, records.values.new_ones(len(records), 1)], dim=1)

    @torch.no_grad()
    def fit(self, records: Records, *, trim: float, floor: float) -> None:
        """Fit to the records, leaving out the share ``trim`` that lies farthest out.

        floor: smallest standard deviation. The precision is scaled, by a factor of ten at most, so that half
        of all records lie nearer than half of a Gaussian's would. Only columns that vary by more than the
        floor count: the others are as near as can be whatever the spread.
        """
        n_columns = int(self.modelled.sum())
        if not n_columns:
            return
        records = records[: max(1, _MOST_CELLS // len(self.modelled))]
        present = self._present(records)
        values = records.values.masked_fill(present == 0, torch.nan)
        centre = values.nanmedian(dim=0).values.nan_to_num(0.0)
        distance = ((values - centre).nan_to_num(0.0).square()).sum(dim=1)
        n_kept = max(min(len(records), n_columns + 2), round(len(records) * (1 - trim)))
        kept = distance.new_empty(0, dtype=torch.int64)
        for _ in range(_STEPS):
            farther = distance - present.sum(dim=1)  # than expected, which is less for a record of few cells
            before, kept = kept, farther.argsort(stable=True)[:n_kept].sort().values
            if torch.equal(before, kept):
                break
            varying = self._fit_to(records[kept], floor)
            distance = 2 * self.surprise(records).sum(dim=1)
        n_cells = (present * varying).sum(dim=1)
        if (n_cells > 0).any():
            n_cells, distance = n_cells[n_cells > 0], distance[n_cells > 0]
            # the median of chi squared (Wilson & Hilferty 1931)
            expected = n_cells * (1 - 2 / (9 * n_cells)) ** 3
            self.precision.div_((distance / expected).median().clamp(*_RESCALED))

    def _fit_to(self, records: Records, floor: float) -> Tensor:
        """Regress on the context, then estimate the covariance, shrunk for few records.

        Each pair of columns counts where both are observed. Returns which columns vary by more than the
        floor, (n_numeric,) bool.
        """
        present, design = self._present(records), self._design(records)
        ridge = 1e-3 * torch.eye(design.shape[1], device=design.device)
        for column in range(present.shape[1]):  # each on the records that have it
            weighted = design * present[:, column : column + 1]
            self.coefficients[:, column] = torch.linalg.solve(
                weighted.T @ design + ridge * present[:, column].sum().clamp(min=1),
                weighted.T @ records.values[:, column],
            )
        residual = (records.values - design @ self.coefficients) * present
        covariance = residual.T @ residual / (present.T @ present).clamp(min=1)
        shrink = min(1.0, _SHRINK * int(self.modelled.sum()) / len(records))
        covariance = torch.lerp(covariance, covariance.diag().diag(), shrink)
        if shrink == 1:  # a diagonal needs no eigenvectors, which take an hour of 10,000 columns
            inverse = (1 / (covariance.diag().double() + floor**2)).diag()
        else:
            values, vectors = torch.linalg.eigh(covariance.double())
            inverse = (vectors / (values.clamp(min=0) + floor**2)) @ vectors.T
        both = self.modelled[:, None] & self.modelled
        self.precision.copy_(inverse.to(self.precision.dtype) * both)
        return covariance.diag() > floor**2


def fill(residual: Tensor, missing: Tensor, precision: Tensor) -> Tensor:
    """Return residuals (B, N), the missing ones (1 in missing) solved for precision · residual = 0 there.

    A record takes as many conjugate-gradient steps as it misses cells, which is exact but for rounding, and a
    few more. Records without a missing cell come back unchanged, to the bit.
    """
    n_missing = missing.sum(dim=1, keepdim=True)
    n_steps = (n_missing + _MORE_SOLVED * (n_missing > 0)).clamp(max=min(_MOST_SOLVED, residual.shape[1]))
    most = int(n_steps.max()) if len(n_steps) else 0
    if not most:
        return residual
    scale = precision.diagonal().clamp(min=_TINY)  # Jacobi's preconditioner
    rest = -(even_product(residual, precision)) * missing
    search = rest / scale
    along = (rest * search).sum(dim=1, keepdim=True)
    for i in range(most):
        turned = even_product(search, precision) * missing
        step = (n_steps > i) * along / (search * turned).sum(dim=1, keepdim=True).clamp(min=_TINY)
        residual = residual + step * search
        rest = rest - step * turned
        again = (rest * rest / scale).sum(dim=1, keepdim=True)
        search = rest / scale + again / along.clamp(min=_TINY) * search
        along = again
    return residual
