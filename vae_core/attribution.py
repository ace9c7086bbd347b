"""Why a flagged record scores high: which columns, and what they should have been.

Belongs here: counterfactuals, which cost many scorings per column and are meant for few records. Does not:
the per-column terms that every record has for free (scoring.py).
"""

# F records asked about, J columns, V variants of a record, P pairs of columns

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vae_core.critic import CellCritic
from vae_core.model import VAE
from vae_core.records import MISSING, Records
from vae_core.scoring import Expected, Scorer

_ROUNDS = 5  # of predicting a cell from its record and filling that in
_LARGEST_SLICE = 384  # records; what explains one record is some dozens of its variants
_MOST_CELLS = 2**22  # of the variants scored at once
_NAMINGS = 3  # a column or a pair each
_AS_GOOD = 0.5  # share of the best column's fall that another column needs to be named beside it
_ENOUGH = 0.5  # share of a record's score: where no column alone makes it fall by as much, pairs are tried
_MOST_PAIRED = 24  # columns among which pairs are tried
# nats, −log 1 %: what a pair must explain beyond a column for two faults to be likelier than one
_SECOND_FAULT = 4.6
_FALL = 0.1  # nats of suspicion that a nat of the score's fall is worth as evidence against a cell
_LIKELY = 0.1  # share of the likeliest cell's probability that another cell needs to be named beside it
_TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, eq=False)
class Attribution:
    """What raised the scores of records, and what was expected instead.

    drop: (n_records, n_columns) nats by which the score falls when this cell alone takes its expected value;
        0 for a missing cell.
    share: (n_records, n_columns) a named column's fall over the sum of all falls and ``kl_share``'s part; 0
        for the other columns.
    kl_share: (n_records,) the part of no column: what the KL term keeps above its mean in training when the
        named columns take their expected values.
    column_terms: (n_records, n_columns) the terms of the score of the record as it stands, see ``Scores``.
    expected: each cell given the other columns of its record, without those named before it.
    """

    drop: Tensor
    share: Tensor
    kl_share: Tensor
    column_terms: Tensor
    expected: Expected


def attribute(
    vae: VAE, records: Records, critic: CellCritic | None = None, *, within: Tensor | None = None
) -> Attribution:
    """Explain records: about twenty scorings per record and column, and six per pair where pairs are tried.

    Columns are named by forward selection: first the one whose expected value makes the score fall most, then
    the one that does so once the first is mended, and so on. A column that only looks odd beside another's
    wild value is not blamed. Where any one of several would do (a fee that does not match an amount), they
    share the fall. Where no column alone would do, because two are wrong in the same way and support each
    other, the best pair is named. Each gets its Shapley value (Shapley 1953) of the pair's fall.

    A critic (critic.py) is a second witness. The column with the most evidence is named: its suspicion plus a
    tenth of the fall, both in nats. Columns that would do nearly as well share the fall by how likely each is
    to be the wrong one. Wild values are still the model's to name; where ordinary values do not go together,
    the critic knows better (docs/log.md).

    The expected value of a number given the other columns is found by leaving it out, putting the decoder's
    mean in its place and repeating (missing-data imputation as in Rezende et al. 2014, with means instead of
    draws). On 19 ADBench sets a column moved by 4 standard deviations has the largest share in 93 % of cases,
    with a critic in 96 %; it has the largest per-column term in 85 % (`make bench-explanation`, docs/log.md).

    within: (2, n_numeric) the lowest and the highest value that may be expected of each number; none: any.
        What would clear a record must be a value that the column takes. Without bounds, a distance is named
        beside a fare that is a hundred times too high, since 3,000 miles would explain the fare.

    Raises ValueError where the records, the critic or the bounds do not fit the model's layout, or a lowest
    value is not below or at the highest.
    """
    vae.layout.check(records)
    if within is not None and within.shape != (2, len(vae.layout.numeric)):
        raise ValueError(f"within must be (2, {len(vae.layout.numeric)}), is {tuple(within.shape)}")
    if within is not None and not (within[0] <= within[1]).all():
        names = [
            n for n, ordered in zip(vae.layout.numeric, within[0] <= within[1], strict=True) if not ordered
        ]
        raise ValueError(
            f"within must be the lowest and the highest value of each number, is not for {', '.join(names)}"
        )
    if critic is not None and critic.layout != vae.layout:
        raise ValueError(
            "the critic's columns differ from the model's in name, order or role: pass a critic that fit_critic trained "
            "with the model's layout, or none"
        )
    step = max(1, _MOST_CELLS // len(vae.layout.columns) ** 2)
    starts = range(0, max(1, len(records)), step)
    parts = [_attribute(vae, records[start : start + step], critic, within) for start in starts]
    expected = [part.expected for part in parts]
    return Attribution(
        drop=torch.cat([part.drop for part in parts]),
        share=torch.cat([part.share for part in parts]),
        kl_share=torch.cat([part.kl_share for part in parts]),
        column_terms=torch.cat([part.column_terms for part in parts]),
        expected=Expected(*map(torch.cat, zip(*map(_tensors, expected), strict=True))),
    )


def expect_from_others(vae: VAE, records: Records) -> Expected:
    """Return what the model expects of each cell given the other cells of its record.

    The cell is left out, the decoder's mean put in its place, and that repeated, as in ``attribute``. std is
    the decoder's: it takes the latents for known, and is too small where the others tell little of them.

    Raises ValueError where the records do not fit the model's layout.
    """
    vae.layout.check(records)
    scorer = Scorer(vae)
    each = torch.eye(len(vae.layout.columns), dtype=torch.bool, device=records.device)
    step = max(1, _MOST_CELLS // len(each) ** 2)
    starts = range(0, max(1, len(records)), step)
    parts = [records[start : start + step] for start in starts]
    found = [_own_cells(_fill_in(scorer, part, each.expand(len(part), -1, -1))[1]) for part in parts]
    return Expected(*map(torch.cat, zip(*map(_tensors, found), strict=True)))


def _attribute(vae: VAE, records: Records, critic: CellCritic | None, within: Tensor | None) -> Attribution:
    case = _Case(vae, records, critic, within)
    alone = case.mended_by_each()
    drop_FJ = case.falls(alone)
    paired_F = case.name_pairs(drop_FJ)
    case.name_columns(alone, ~paired_F)
    for _ in range(_NAMINGS - 1):
        case.name_columns(case.mended_by_each(), torch.ones_like(paired_F))
    typical_kl, weight = (x.to(records.device) for x in (vae.typical_kl, vae.weights[-1]))
    kl_part_F = (case.kl_divergence - typical_kl).clamp(min=0) * weight
    whole_F = (case.explained.sum(dim=1) + kl_part_F).clamp(min=_TINY)
    return Attribution(
        drop_FJ, case.explained / whole_F[:, None], kl_part_F / whole_F, case.column_terms, case.expected
    )


@dataclass(frozen=True, eq=False)
class _Mended:
    """Variants of records with some cells at their expected values: scores (F, V); expected (F, V, n)."""

    anomaly_score: Tensor
    kl_divergence: Tensor
    expected: Expected


class _Case:
    """Records under explanation: the columns named so far, and how the records stand once those are mended.

    anomaly_score, kl_divergence: (F,) with the mended cells at their expected values. column_terms: (F, J)
    before any was mended. mended, named: (F, J) bool.
    explained: (F, J) nats. expected: of a named column as of its naming, of the others as of now.
    """

    def __init__(self, vae: VAE, records: Records, critic: CellCritic | None, within: Tensor | None) -> None:
        self.scorer = Scorer(vae, largest=_LARGEST_SLICE)
        self.within = None if within is None else within.to(records.device)
        before = self.scorer(records)
        self.records, self.critic = records, critic
        self.anomaly_score, self.kl_divergence = before.anomaly_score, before.kl_divergence
        self.column_terms, self.expected = before.column_terms, self.scorer.expect(records)
        self.explained = torch.zeros_like(records.observed)
        self.named = torch.zeros_like(records.observed, dtype=torch.bool)
        self.mended = self.named.clone()
        self.each = torch.eye(self.named.shape[1], dtype=torch.bool, device=records.device)

    def mended_by_each(self) -> _Mended:
        """Return variants (F, J): for each column, the record with it mended beside earlier ones."""
        return self.with_expected(self.records, self.mended[:, None] | self.each)

    def with_expected(self, records: Records, opened: Tensor) -> _Mended:
        """Score records with opened cells at what the rest of their record predicts.

        opened: (F, V, J) bool, V variants of each record.
        """
        altered, expected = _fill_in(self.scorer, records, opened, self.within)
        after, shape = self.scorer(altered), opened.shape[:2]
        return _Mended(after.anomaly_score.view(shape), after.kl_divergence.view(shape), expected)

    def falls(self, alone: _Mended) -> Tensor:
        """Return by how many nats (F, J) the score falls when a column not named so far is mended, too."""
        return (self.anomaly_score[:, None] - alone.anomaly_score) * self.records.observed * ~self.named

    def name_columns(self, alone: _Mended, where: Tensor) -> None:
        """Name the best column of the records ``where`` (F,), and those that would do nearly as well."""
        own = _own_cells(alone.expected)
        self.expected = _choose(self.named | ~where[:, None], self.expected, own)
        fall_FJ = self.falls(alone)
        fall_F = fall_FJ.amax(dim=1)
        found_F = where & (fall_F > 0)
        weight_FJ = self.blame(fall_FJ, found_F)
        as_good_FJ = weight_FJ > 0
        best_F = weight_FJ.argmax(dim=1)
        self.explained += weight_FJ * fall_F[:, None]
        self.named |= as_good_FJ
        self.mended |= self.each[best_F] & found_F[:, None]
        kl_F = alone.kl_divergence.gather(1, best_F[:, None])[:, 0]
        self.anomaly_score = torch.where(found_F, self.anomaly_score - fall_F, self.anomaly_score)
        self.kl_divergence = torch.where(found_F, torch.minimum(kl_F, self.kl_divergence), self.kl_divergence)

    def blame(self, falls: Tensor, where: Tensor) -> Tensor:
        """Return how the largest of each record's falls (F, J) is shared among its columns, (F, J).

        It is 0 outside of ``where`` (F,).
        """
        if self.critic is None:
            weight_FJ = falls * (falls >= _AS_GOOD * falls.amax(dim=1, keepdim=True))
        else:
            evidence_FJ = self.critic.suspicion(self.as_mended()) + _FALL * falls
            excluded_FJ = self.named | (self.records.observed == 0)
            weight_FJ = evidence_FJ.masked_fill(excluded_FJ, -math.inf).softmax(dim=1).nan_to_num(nan=0.0)
            weight_FJ *= weight_FJ >= _LIKELY * weight_FJ.amax(dim=1, keepdim=True)
        weight_FJ = weight_FJ * where[:, None]
        return weight_FJ / weight_FJ.sum(dim=1, keepdim=True).clamp(min=_TINY)

    def as_mended(self) -> Records:
        """Return the records with the mended cells at their expected values."""
        numbers, codes = self.mended.tensor_split([self.records.numeric.shape[1]], dim=1)
        return Records(
            torch.where(numbers, self.expected.mean, self.records.numeric),
            torch.where(codes, self.expected.code, self.records.categorical),
            self.records.context,
        )

    def name_pairs(self, drop: Tensor) -> Tensor:
        """Name a pair where one column is not enough. Returns (F,) bool: where.

        drop: (F, J) of each column alone.
        """
        paired_F = torch.zeros_like(self.anomaly_score, dtype=torch.bool)
        if drop.shape[1] < 2:
            return paired_F
        alone_F = drop.clamp(min=0).amax(dim=1)
        needed_F = torch.maximum(
            torch.maximum(2 * alone_F, alone_F + _SECOND_FAULT), _ENOUGH * self.anomaly_score
        )
        rows = torch.nonzero((alone_F < _ENOUGH * self.anomaly_score) & (self.anomaly_score > 0))[:, 0]
        step = max(1, _MOST_CELLS // (_MOST_PAIRED**2 * drop.shape[1]))
        for part in (rows[start : start + step] for start in range(0, len(rows), step)):
            pairs_FPJ = self._suspected_pairs(part, drop[part])
            missing_FP = (pairs_FPJ & (self.records.observed[part] == 0)[:, None]).any(dim=2)
            after_FP = self.with_expected(self.records[part], pairs_FPJ).anomaly_score
            after_FP = after_FP.masked_fill(missing_FP, math.inf)
            after_F, best_F = after_FP.min(dim=1)
            fall_F = self.anomaly_score[part] - after_F
            found = fall_F >= needed_F[part]
            pair_FJ = pairs_FPJ[torch.arange(len(part)), best_F][found]
            self._name_pair(part[found], pair_FJ, drop[part[found]], fall_F[found])
            paired_F[part[found]] = True
        return paired_F

    def _suspected_pairs(self, rows: Tensor, drop: Tensor) -> Tensor:
        """Return (F, P, J) bool: pairs of the columns with the largest drops or the farthest from the mean.

        Observed columns come first.
        """
        far_FJ = torch.zeros_like(drop)
        far_FJ[:, : self.records.numeric.shape[1]] = self.records.values[rows].abs()
        rank_FJ = torch.minimum(
            *(x.argsort(dim=1, descending=True, stable=True).argsort(dim=1) for x in (drop, far_FJ))
        )
        rank_FJ = rank_FJ.masked_fill(self.records.observed[rows] == 0, drop.shape[1])
        suspects_FS = rank_FJ.argsort(dim=1, stable=True)[:, :_MOST_PAIRED]
        pairs = torch.combinations(torch.arange(suspects_FS.shape[1], device=drop.device))
        return self.each[suspects_FS[:, pairs]].any(dim=2)

    def _name_pair(self, rows: Tensor, pair: Tensor, drop: Tensor, fall: Tensor) -> None:
        """Name a pair of columns in each of the given rows.

        pair: (F, J) bool. drop: (F, J) of each column alone. fall: (F,) of the pair.
        """
        mended = self.with_expected(self.records[rows], pair[:, None])
        gain = drop * pair
        advantage = (2 * gain - gain.sum(dim=1, keepdim=True)) * pair
        advantage = advantage.clamp(-fall[:, None], fall[:, None])
        self.explained[rows] = (fall[:, None] + advantage) / 2 * pair
        self.named[rows], self.mended[rows] = pair, pair
        self.anomaly_score[rows] = mended.anomaly_score[:, 0]
        self.kl_divergence[rows] = torch.minimum(mended.kl_divergence[:, 0], self.kl_divergence[rows])
        for mine, theirs in zip(_tensors(self.expected), _tensors(mended.expected), strict=True):
            mine[rows] = theirs[:, 0]


def _fill_in(
    scorer: Scorer, records: Records, opened: Tensor, within: Tensor | None = None
) -> tuple[Records, Expected]:
    """Return the variants (F · V) with opened cells filled in, and what is expected of them (F, V, n)."""
    n_records, n_variants, _ = opened.shape
    rows = torch.arange(n_records, device=records.device).repeat_interleave(n_variants)
    variants = records[rows]
    numbers, codes = opened.flatten(0, 1).tensor_split([variants.numeric.shape[1]], dim=1)

    def filled(numeric: Tensor, categorical: Tensor) -> Records:
        return Records(
            torch.where(numbers, numeric, variants.numeric),
            torch.where(codes, categorical, variants.categorical),
            variants.context,
        )

    altered = filled(
        torch.full_like(variants.numeric, math.nan), torch.full_like(variants.categorical, MISSING)
    )
    for _ in range(_ROUNDS):
        expected = scorer.expect(altered)
        if within is not None:
            expected = replace(expected, mean=expected.mean.clamp(*within))
        altered = filled(expected.mean, expected.code)
    shape = n_records, n_variants
    return altered, Expected(*(x.view(*shape, x.shape[1]) for x in _tensors(expected)))


def _own_cells(expected: Expected) -> Expected:
    """Return from variants (F, J, n), one for each column, the cells of that column: (F, n)."""
    n_numeric = expected.mean.shape[2]

    def own(values: Tensor, first: int) -> Tensor:
        return values[:, first : first + values.shape[2]].diagonal(dim1=1, dim2=2).clone()

    return Expected(
        own(expected.mean, 0),
        own(expected.std, 0),
        own(expected.code, n_numeric),
        own(expected.probability, n_numeric),
    )


def _choose(first: Tensor, mine: Expected, theirs: Expected) -> Expected:
    """Return cells of ``mine`` where ``first`` (F, J), else of ``theirs``."""
    numbers, codes = first.tensor_split([mine.mean.shape[1]], dim=1)
    wheres = (numbers, numbers, codes, codes)
    pairs = zip(wheres, _tensors(mine), _tensors(theirs), strict=True)
    return Expected(*(torch.where(where, a, b) for where, a, b in pairs))


def _tensors(expected: Expected) -> tuple[Tensor, ...]:
    return expected.mean, expected.std, expected.code, expected.probability
