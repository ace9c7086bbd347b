"""Where an interrupted fit can resume, and which fit that is.

Belongs here: what a checkpoint holds, and how one of another fit is recognised. Does not: what a fit's state
is (run.py), or where checkpoints are kept (the caller's).
"""

from __future__ import annotations

import ctypes
import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from vae_core.known import Known
from vae_core.recipe import Recipe
from vae_core.records import Layout, Records

_OF = "of."  # prefix of the tensors that identify a checkpoint's fit
_AT_ONCE = 2**16  # records hashed at a time, copied if not contiguous or not on the CPU


class OtherFit(ValueError):
    """A checkpoint is of other records, another recipe or another seed than the fit to resume."""


@dataclass(frozen=True)
class Checkpoint:
    """All that a fit needs to resume: its step count, and tensors by name (no other state, no pickle)."""

    step: int
    tensors: dict[str, Tensor]


def identify(layout: Layout, recipe: Recipe, records: Records, seed: int, known: Known) -> dict[str, Tensor]:
    """Return what a fit is, as tensors for its checkpoints: of each argument a SHA-256, (32,) uint8.

    Every cell counts, to the bit and in its place: half a second a gigabyte.
    """
    parts: dict[str, Iterable[bytes | Tensor]] = {
        "layout": [_text(layout)],
        "recipe": [_text(recipe)],
        "records": _cells(records),
        "seed": [str(seed).encode()],
        "anomalies": _cells(known.anomalies),
        "normals": _cells(known.normals),
    }
    return {f"{_OF}{name}": _digest(content) for name, content in parts.items()}


def refuse_other(checkpoint: Checkpoint, fit: dict[str, Tensor]) -> None:
    """Raise OtherFit where a checkpoint's fit is not the one that ``identify`` describes."""
    theirs = checkpoint.tensors
    if not fit.keys() <= theirs.keys():
        raise OtherFit(
            f"the checkpoint after step {checkpoint.step} does not say which fit it belongs to: an older vae_core "
            f"wrote it; start again without it"
        )
    others = [name.removeprefix(_OF) for name, own in fit.items() if not torch.equal(theirs[name].cpu(), own)]
    if others:
        raise OtherFit(
            f"the checkpoint after step {checkpoint.step} is of another fit, which differs in: {', '.join(others)}; pass what "
            f"it was made with, or start again without it"
        )


def marked(keep: Callable[[Checkpoint], None], fit: dict[str, Tensor]) -> Callable[[Checkpoint], None]:
    """Wrap ``keep`` so that every checkpoint carries what ``identify`` says of its fit."""
    return lambda state: keep(Checkpoint(state.step, state.tensors | fit))


def _text(settings: Layout | Recipe) -> bytes:
    return json.dumps(settings.to_dict(), sort_keys=True, default=float).encode()  # numpy's integers


def _cells(records: Records | None) -> list[bytes | Tensor]:
    if not records:
        return []
    tensors = [records.numeric, records.categorical, records.context]
    return [str([tuple(x.shape) for x in tensors]).encode(), *tensors]


def _digest(content: Iterable[bytes | Tensor]) -> Tensor:
    digest = hashlib.sha256()
    for part in content:
        if isinstance(part, bytes):
            digest.update(part)
            continue
        for first in range(0, len(part), _AT_ONCE):
            here = part[first : first + _AT_ONCE].cpu().contiguous()
            digest.update((ctypes.c_char * here.nbytes).from_address(here.data_ptr()))
    return torch.tensor(list(digest.digest()), dtype=torch.uint8)
