"""A default-family model's weights, laid out as the fused score multiplies them.

Belongs here: what depends on the model alone, computed once. Does not: the score (fused.py).

Matrices are (outputs, inputs). A bias is the weight of an input that is one, which each layer hands on. What
becomes a power or a logarithm is scaled to base 2.
"""

# M members, N numeric columns, K codes of one column, H hidden units and the one that they hand on, Z latents

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from vae_core.layers import CodeTable, MemberLinear
from vae_core.model import VAE
from vae_core.noise import LOG2_E
from vae_core.priors import Mixture

_MOST_ONE_HOT = 64  # codes of a column; the weights of more are looked up


class FusedWeights:
    """The weights of one model, as it is now.

    encoder_inputs: (M · H, inputs) of numbers, context, indicators, codes as 0 and 1, and one.
    one_hot: which inputs are a column's codes, missing first. wide: what a code of any other column adds,
        (M, H, 1 + K). removal: what to add for a column to count as missing, (M, H, 1 + K) each.
    posterior: (M, Z + 1 + Z, H), means, one, log-variances. posterior_means: its first Z + 1.
    from_latents: (M, H, context + Z + 1). outputs: (M, N + N + codes, H), means, log-variances, logits.
    """

    def __init__(self, vae: VAE) -> None:
        recipe, layout = vae.recipe, vae.layout
        self.device, self.n_members = vae.device, recipe.n_members
        self.n_numeric, self.n_context = len(layout.numeric), len(layout.context)
        self.n_latents, self.n_codes = recipe.latents_for(layout), layout.n_codes
        self.n_categorical = len(self.n_codes)
        n, z = self.n_numeric, self.n_latents
        self.indicated = torch.tensor(vae.indicated).to(self.device)
        hidden = _handing_on(vae.encoder_inputs)
        n_inputs = hidden.shape[-1] - 1
        self.indicators = slice(n + self.n_context, n_inputs)
        tables = [] if vae.encoder_codes is None else _tables(vae.encoder_codes, self.n_codes)
        self.removal = [(table[..., :1] - table).contiguous() for table in tables]
        self.wide, self.one_hot, few = {}, {}, []
        for column, table in enumerate(tables):
            if self.n_codes[column] > _MOST_ONE_HOT:
                self.wide[column] = table
            else:
                few.append(table)
                self.one_hot[column] = slice(n_inputs, n_inputs + table.shape[-1])
                n_inputs += table.shape[-1]
        self.encoder_inputs = torch.cat([hidden[..., :-1], *few, hidden[..., -1:]], dim=-1).flatten(0, 1)
        encoder, decoder = _with_bias(vae.encoder_outputs), _with_bias(vae.decoder_outputs)
        one = torch.zeros_like(encoder[:, :1])
        one[..., -1] = 1
        self.posterior = torch.cat([encoder[:, :z], one, encoder[:, z:] * LOG2_E], dim=1)
        self.posterior_means = self.posterior[:, : z + 1]
        hidden = _handing_on(vae.decoder_inputs)
        self.from_latents = torch.cat([hidden[..., z:-1], hidden[..., :z], hidden[..., -1:]], dim=-1)
        self.outputs = torch.cat([decoder[:, :n], decoder[:, n:] * LOG2_E], dim=1)
        shares = [math.log(recipe.category_floor / n_codes) for n_codes in self.n_codes]
        self.even_shares = torch.tensor(shares, device=self.device)  # see likelihoods.Categorical
        self.lowest_variance = vae.noise.lowest_variance.mT.contiguous()  # (M, N, 1)
        self.n_multiplied = vae.noise.n_multiplied
        self.per_ratio = (1 / (3 * vae.scale))[:, None]
        share = vae.noise.share_in_terms[:, None]
        self.own_share, self.student_share = share, 2 * (1 - share) / self.n_members
        self.typical, self.weights = vae.typical[:, None], (vae.learned * vae.weights[:-1])[:, None]
        self.recurring = vae.recurring.by_column()
        self.kl_weight = float(vae.weights[-1])
        self.n_components, self.exponents = 1, None
        if isinstance(vae.prior, Mixture):
            means_MKZ, seconds_MKZ, constants_MK1 = vae.prior.exponents()
            self.n_components = means_MKZ.shape[1]
            self.exponents = torch.cat([means_MKZ, constants_MK1, seconds_MKZ], dim=-1).detach() * LOG2_E


def _with_bias(layer: MemberLinear) -> Tensor:
    """Return weights (M, outputs, inputs + 1), the bias as the weight of an input that is one."""
    return torch.cat([layer.weight.detach(), layer.bias.detach()], dim=1).mT.contiguous()


def _handing_on(layer: MemberLinear) -> Tensor:
    """Return ``_with_bias`` with one more output, which is always one: (M, outputs + 1, inputs + 1)."""
    weight = functional.pad(_with_bias(layer), (0, 0, 0, 1))
    weight[:, -1, -1] = 1
    return weight


def _tables(codes: CodeTable, n_codes: tuple[int, ...]) -> list[Tensor]:
    """Return what each code of each column adds to the hidden units, (M, H, 1 + K) each; missing first."""
    rows = functional.pad(codes.weight.detach(), (0, 1)).mT  # nothing to the unit that is handed on
    return [part.contiguous() for part in torch.split(rows, [1 + n for n in n_codes], dim=-1)]
