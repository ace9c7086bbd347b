"""What a GPU does, as far as a machine without one can tell: recorded steps, minibatches ahead, no mixed
devices, nothing that waits.

PyTorch's fake tensors run every operation's checks for a device that is not there: operands on two devices
are an error, and so is a value that the host asks for. They hold no numbers.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from vae_core import (
    VAE,
    Known,
    Layout,
    Recipe,
    Records,
    Scorer,
    attribute,
    expect,
    fit,
    generation,
    linear,
    minibatches,
    score,
    scoring,
)
from vae_core.attribution import _Case
from vae_core.critic import CellCritic, _Changes
from vae_core.device import Recorded, graph, in_halves
from vae_core.flat import FlatParameters
from vae_core.fused import FusedScorer
from vae_core.fused_weights import FusedWeights
from vae_core.gradient import gradient
from vae_core.losses import Losses
from vae_core.minibatches import Minibatch, Minibatches
from vae_core.parallel import Share
from vae_core.posteriors import FullGaussian
from vae_core.run import Run
from vae_core.scoring import ROUNDING
from vae_core.slices import on_lanes, side_by_side
from vae_core.threads import one_thread_per_kernel

LINEAR: dict[str, object] = {"encoder": "exact", "noise": "gaussian_shared_sigma", "prior": "normal"}
THERE = "meta"  # stands for a device that is not the CPU
NUMBERS = Layout(("a", "b", "c", "d", "e"), (), ("hour",))
Network = TypeVar("Network", bound=nn.Module)
SHORT = Recipe(steps=60, n_members=2, width=16, warm_up=5)


def numbers(records: Records) -> Records:
    return Records(records.numeric, records.categorical[:, :0], records.context)


def same(one: VAE, other: VAE) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


class Recorder:
    """Stands for a graph: repeats a call on the tensors that it was recorded with."""

    def __init__(self) -> None:
        self.n_recorded = self.n_repeated = 0

    def __call__(self, call: Callable[[], None]) -> Callable[[], None]:
        self.n_recorded += 1

        def repeat() -> None:
            self.n_repeated += 1
            call()

        return repeat


def trained(records: Records, recorder: Callable[[Callable[[], None]], Callable[[], None]] | None) -> VAE:
    vae = VAE(NUMBERS, SHORT)
    vae.initialise(records.categorical, torch.Generator().manual_seed(0))
    run = Run(vae, [records], [0])
    run.recorder = recorder
    with one_thread_per_kernel():
        run.train()
    return vae


def test_a_recorded_step_is_the_plain_one(draw: Callable[..., Records]) -> None:
    """All that changes from step to step goes through the recorded call's own tensors; trimming begins in a
    second recording.
    """
    records, recorder = numbers(draw(300, seed=1)), Recorder()
    assert same(trained(records, recorder), trained(records, None))
    assert recorder.n_recorded == 2
    assert recorder.n_repeated == 60 - 2 * 3


def test_where_recording_fails_the_fit_goes_on(
    draw: Callable[..., Records], caplog: pytest.LogCaptureFixture
) -> None:
    """A driver that cannot costs time, not the night."""

    def refuse(call: Callable[[], None]) -> Callable[[], None]:
        raise RuntimeError("operation not permitted when stream is capturing")

    records = numbers(draw(300, seed=1))
    with caplog.at_level(logging.WARNING):
        assert same(trained(records, refuse), trained(records, None))
    assert "could not be recorded" in caplog.text


def test_two_fits_of_one_process_record_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a recording begins, torch waits for the whole device, which breaks off another that is under
    way.
    """
    under_way: list[object] = []

    @contextmanager
    def capture(recorded: object, **_: object) -> Iterator[None]:
        assert not under_way
        under_way.append(recorded)
        yield
        under_way.remove(recorded)

    both = threading.Barrier(2, timeout=60)

    def fit_in_a_thread(_: int) -> None:
        both.wait()
        graph(lambda: time.sleep(0.01))

    stands_for_a_graph = type("Graph", (), {"replay": lambda _: None})
    monkeypatch.setattr(torch.cuda, "CUDAGraph", stands_for_a_graph)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: None)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(fit_in_a_thread, range(2)))


def test_a_recorded_call_sees_what_it_is_given_each_time() -> None:
    """Its arguments are copied into the place that was recorded."""
    seen: list[float] = []
    recorded = Recorded(lambda x: seen.append(float(x)), Recorder())
    for value in range(6):
        recorded(torch.tensor(float(value)))
    assert seen == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("settings", [{}, {"samples": 3}, {"encoder": "none"}, {"hidden_categories": 0.0}])
def test_minibatches_drawn_together_are_those_drawn_one_by_one(
    settings: dict[str, object], layout: Layout, draw: Callable[..., Records]
) -> None:
    """A GPU's block of steps has the minibatches, gaps and noise of a CPU's steps; its state is that of the
    steps taken.
    """
    vae, sets = VAE(layout, replace(SHORT, **settings)), [draw(300, seed=1)]  # type: ignore[arg-type]

    def new() -> Minibatches:
        return Minibatches(vae, sets, [torch.Generator().manual_seed(3)])

    one_by_one, together = new(), new()
    expected = [one_by_one.take(1)[0] for _ in range(7)]
    found = together._drawn(7)
    for a, b in zip(expected, found, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(_parts(a), _parts(b), strict=True))
    assert torch.equal(one_by_one.random_states[0], together.random_states[0])
    again = new()
    again.restore(one_by_one.random_states)
    assert torch.equal(again.take(1)[0].noise, one_by_one.take(1)[0].noise)


def test_records_that_do_not_fit_a_device_after_all_are_sent_step_by_step(
    layout: Layout,
    draw: Callable[..., Records],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Somebody else took its memory between the look and the copy."""

    def new() -> Minibatch:
        batches = Minibatches(VAE(layout, SHORT), [draw(300, seed=1)], [torch.Generator().manual_seed(3)])
        return batches.take(1)[0]

    def full(*_: object) -> Records:
        raise torch.OutOfMemoryError("CUDA out of memory")

    expected = new()
    monkeypatch.setattr(Records, "to", full)
    assert all(torch.equal(a, b) for a, b in zip(_parts(new()), _parts(expected), strict=True))
    assert "are sent to it step by step" in caplog.text


def _parts(batch: Minibatch) -> list[Tensor]:
    records, visible = batch.records, batch.visible
    return [records.numeric, records.context, records.categorical, visible.categorical, batch.noise]


def test_shares_of_a_minibatch_make_it_up(layout: Layout, draw: Callable[..., Records]) -> None:
    """Of 128 records by three processes each is someone's, once, with its own noise."""
    vae, sets = VAE(layout, SHORT), [draw(300, seed=1)]
    whole, *parts = (
        Minibatches(vae, sets, [torch.Generator().manual_seed(3)], share).take(1)[0]
        for share in (None, *(Share(rank, 3, 128) for rank in range(3)))
    )
    assert torch.equal(torch.cat([p.records.numeric for p in parts]), whole.records.numeric)
    assert torch.equal(torch.cat([p.visible.categorical for p in parts]), whole.visible.categorical)
    assert torch.equal(torch.cat([p.noise for p in parts], dim=2), whole.noise)


def on_gpu(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=THERE)


def imagined(model: Network) -> Network:
    """The model on a device that is not there."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(on_gpu(*parameter.shape)))
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, on_gpu(*buffer.shape, dtype=buffer.dtype))
    return model


@pytest.mark.parametrize("samples", [1, 5])
def test_a_step_on_a_gpu_mixes_no_devices_and_waits_for_nothing(samples: int) -> None:
    """With gaps, context, trimming and a weight of the KL that changes."""
    real = VAE(NUMBERS, SHORT, (1, 2))
    with FakeTensorMode(allow_non_fake_inputs=True):
        vae = imagined(real)
        player = FlatParameters(list(vae.parameters()))
        named = {parameter: name for name, parameter in vae.named_parameters()}
        batch = Records(on_gpu(128, 5), on_gpu(128, 0, dtype=torch.int64), on_gpu(128, 1))
        found = gradient(vae, batch, on_gpu(samples, 2, 128, 3), kl_weight=on_gpu(), n_trimmed=12)
        player.lay([found.by_name[named[parameter]] for parameter in player.ordered])
        assert player.clip(10.0).device.type == THERE
        player.step(on_gpu(), on_gpu())
        assert player.tensors[0].device.type == THERE


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"posterior": "full", "noise": "student_t"},
        {"prior": "normal", "samples": 2},
        {"prior": "hierarchical"},
        {"free_nats": 1.0},
        {"regulariser": "mmd"},
        {"regulariser": "sliced_wasserstein"},
        {"regulariser": "adversarial"},
        {"reconstruction": "vae_gan"},
        {"known_margin": 5.0},
        {"column_noise": {"a": "poisson", "b": "bernoulli", "c": "negative_binomial"}},
        LINEAR,
    ],
)
def test_so_it_does_by_autograd(
    settings: dict[str, object], layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Categories and other recipes. What is made on the host would be copied, and the stream would wait."""
    layout = NUMBERS if settings is LINEAR else layout
    real = VAE(layout, replace(SHORT, **settings), (1, 2))  # type: ignore[arg-type]
    with FakeTensorMode(allow_non_fake_inputs=True):
        vae = imagined(real)
        records, few = records_on_gpu(layout, 128), records_on_gpu(layout, 9)
        noise = on_gpu(vae.recipe.samples, 2, 128, vae.recipe.latents_for(layout))
        known = Known(few, few) if vae.recipe.known_margin else Known()
        losses = Losses(vae, known, torch.Generator("cpu"))
        weights = [vae, *map(imagined, losses.adversaries)]
        players = [FlatParameters(list(network.parameters())) for network in weights]
        monkeypatch.setattr(torch, "tensor", refused)
        monkeypatch.setattr(torch, "as_tensor", refused)
        costs = losses(Minibatch(records, records, noise), on_gpu(), 12)
        for loss, player in zip((costs.model, costs.discriminators), players, strict=False):
            player.differentiate(loss.sum())
            player.clip(10.0)
            player.step(on_gpu(), on_gpu())
        assert costs.means[0].device.type == THERE


def test_so_does_a_critic_s_step(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its changes are drawn on the CPU and sent."""
    real = CellCritic(layout, n_pieces=4)
    with FakeTensorMode(allow_non_fake_inputs=True):
        critic, n_codes = imagined(real), on_gpu(len(layout.categorical), dtype=torch.int64)
        records = records_on_gpu(layout, 300)
        changes = _Changes(layout, records, critic.std, torch.Generator("cpu"), n_codes)
        monkeypatch.setattr(torch, "tensor", refused)
        changed, column, is_other = changes.draw()
        critic(changed).sum().backward()
        assert {x.device.type for x in (changed.numeric, changed.categorical, column, is_other)} == {THERE}


def records_on_gpu(layout: Layout, n: int) -> Records:
    n_numeric, n_categorical = len(layout.numeric), len(layout.categorical)
    codes = on_gpu(n, n_categorical, dtype=torch.int64)
    return Records(on_gpu(n, n_numeric), codes, on_gpu(n, len(layout.context)))


def refused(*_: object, **__: object) -> Tensor:
    raise AssertionError("a copy from the host, for which the device's stream waits")


def test_the_fake_device_finds_what_it_should() -> None:
    """Otherwise the two tests above could not fail."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        there = torch.empty(3, device=THERE)
        with pytest.raises(RuntimeError, match=r"two (different )?devices"):
            there + torch.empty(3)
        with pytest.raises(DataDependentOutputException):
            bool(there.isnan().any())


@given(n=st.integers(0, 300), size=st.integers(1, 400), room=st.integers(1, 400))
def test_slices_are_halved_until_they_fit_and_cover_everything_once(n: int, size: int, room: int) -> None:
    """Whatever the memory: each thing is worked on once, in order, and the size found is used from there
    on.
    """
    done: list[int] = []
    sizes: list[int] = []

    def work(rows: slice, size: int) -> None:
        if size > room:
            raise torch.OutOfMemoryError
        done.extend(range(rows.start, rows.stop))
        sizes.append(size)

    found = in_halves(n, size, work)
    assert done == list(range(n))
    assert set(sizes) <= {found}
    assert not n or (found <= room and (found == size or 2 * found + 1 > room))


@given(n=st.integers(0, 3000), size=st.integers(1, 500))
def test_a_gpu_computes_little_but_records(n: int, size: int) -> None:
    """As few slices as the size allows, padded by less than a block each: a record more than fits does not
    double the work.
    """
    slices: list[tuple[slice, int]] = []
    vae = VAE(NUMBERS, SHORT).to(THERE)
    assert side_by_side(vae, n, lambda *one: slices.append(one), size) == size
    assert [i for rows, _ in slices for i in range(rows.start, rows.stop)] == list(range(n))
    assert len(slices) == math.ceil(n / size)
    assert all(of <= size for _, of in slices)
    assert sum(of for _, of in slices) - n < max(1, 48 * len(slices))


@given(n=st.integers(0, 300), size=st.integers(1, 400), room=st.integers(1, 400))
def test_two_lanes_cover_everything_once(n: int, size: int, room: int) -> None:
    """Each halves its own slices; the size found sufficed for both."""
    done: list[int] = []

    def work(rows: slice, size: int) -> None:
        if size > room:
            raise torch.OutOfMemoryError
        done.extend(range(rows.start, rows.stop))

    with ThreadPoolExecutor(2) as pool:
        found = on_lanes(pool, n, size, work, lambda work: work)
    assert sorted(done) == list(range(n))
    assert not n or (found <= min(size, room) and (found == size or 2 * found + 1 > room))


def test_two_lanes_are_under_way_at_once() -> None:
    """A slice of each lane waits for the other's: one copies while one computes."""
    both = threading.Barrier(2, timeout=60)
    with ThreadPoolExecutor(2) as pool:
        on_lanes(pool, 8, 2, lambda *_: both.wait() and None, lambda work: work)


def test_a_fault_on_a_lane_is_raised_when_both_have_ended() -> None:
    """The other's memory is in use until then."""
    done: list[int] = []

    def work(rows: slice, _: int) -> None:
        if rows.start == 0:
            raise ValueError("no such device")
        done.append(rows.start)

    with ThreadPoolExecutor(2) as pool:
        with pytest.raises(ValueError, match="no such device"):
            on_lanes(pool, 8, 2, work, lambda work: work)
        assert done == [4, 6]


@pytest.mark.parametrize("categories", [True, False])
def test_scores_by_two_lanes_are_those_of_one(
    categories: bool, layout: Layout, draw: Callable[..., Records], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit: each lane has buffers of its own."""
    records = draw(1000, seed=5, missing=0.1)
    layout, records = (layout, records) if categories else (NUMBERS, numbers(records))
    vae = fit(layout, records, SHORT, seed=0)
    usual, other = Scorer(vae), Scorer(vae)
    usual.size = other.size = 96
    expected = usual(records, threads=1)
    with one_thread_per_kernel(), ThreadPoolExecutor(2) as pool:

        def by_lanes(_: VAE, n: int, work: Callable[[slice, int], None], size: int, **__: object) -> int:
            return on_lanes(pool, n, size, torch.inference_mode()(work), lambda work: work)

        monkeypatch.setattr(scoring, "side_by_side", by_lanes)
        found = other(records)
    for name in ("anomaly_score", "reconstruction", "kl_divergence", "column_terms"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name


def test_one_record_too_many_is_an_error() -> None:
    """It is not tried for ever."""

    def work(rows: slice, size: int) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        in_halves(10, 8, work)


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("categories", [True, False])
def test_scores_do_not_depend_on_the_slice_beyond_rounding(
    missing: float, categories: bool, layout: Layout, draw: Callable[..., Records]
) -> None:
    """As slices of any size, on a device that runs out of memory, too; the bound is the one that the docs
    state.
    """
    records = draw(1000, seed=5, missing=missing)
    layout, records = (layout, records) if categories else (NUMBERS, numbers(records))
    vae = fit(layout, records, SHORT, seed=0)
    usual, other = score(vae, records), Scorer(vae)
    for other.size in (1000, 96, 13):
        found = other(records)
        for name in ("anomaly_score", "reconstruction", "kl_divergence", "column_terms"):
            a, b = getattr(found, name), getattr(usual, name)
            assert ((a - b).abs() <= ROUNDING * b.abs().clamp(min=1)).all(), name


def imagined_weights(of: FusedWeights) -> FusedWeights:
    """The weights on a device that is not there."""

    def there(x: object) -> object:
        if isinstance(x, Tensor):
            return on_gpu(*x.shape, dtype=x.dtype)
        if isinstance(x, list):
            return [there(one) for one in x]
        return {name: there(one) for name, one in x.items()} if isinstance(x, dict) else x

    vars(of).update({name: there(x) for name, x in vars(of).items()}, device=torch.device(THERE))
    return of


@pytest.mark.parametrize("prior", ["mixture", "normal"])
@pytest.mark.parametrize("n_codes", [(), (3, 90)])
def test_scoring_on_a_gpu_mixes_no_devices(
    prior: str, n_codes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks once for each slice whether a cell is missing, and nothing else."""
    layout = replace(NUMBERS, categorical=tuple((f"k{n}", n) for n in n_codes))
    real = VAE(layout, replace(SHORT, prior=prior), (1, 2))
    monkeypatch.setattr(FusedScorer, "_any_missing", staticmethod(lambda _: False))
    scorer = FusedScorer(real)  # asks once for the weight of the KL
    with torch.inference_mode(), FakeTensorMode(allow_non_fake_inputs=True):
        scorer.vae, scorer.of_model = imagined(real), imagined_weights(scorer.of_model)
        codes = torch.empty(100, len(n_codes), dtype=torch.int64)
        found = scorer(Records(on_gpu(100, 5), codes, on_gpu(100, 1)), 128)
        assert found.anomaly_score.device.type == found.column_terms.device.type == THERE
        records = Records(torch.empty(100, 5), codes, torch.empty(100, 1))  # they may lie on the CPU
        assert {x.device.type for x in scorer.expect(records, 128)} == {THERE}


GENERAL: list[dict[str, object]] = [
    {},  # with categories
    {"posterior": "full", "noise": "student_t", "prior": "normal"},
    {"prior": "hierarchical"},
    {"regulariser": "kernel"},
    {"column_noise": {"a": "poisson", "b": "bernoulli", "c": "negative_binomial"}},
    LINEAR,
]


@pytest.mark.parametrize("settings", GENERAL)
def test_a_gpu_s_model_explains_records_that_lie_on_the_cpu(
    settings: dict[str, object], layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers lie where the records do. Left out, for they ask for values: checks of the records, the
    conjugate gradients of missing cells, which know no other tensors than they are given, pairs of columns,
    and the weights of the fused score, see above.
    """
    layout = NUMBERS if settings is LINEAR else layout
    real = VAE(layout, replace(SHORT, **settings), (1, 2)).eval()  # type: ignore[arg-type]
    monkeypatch.setattr(Layout, "check", lambda *_: None)
    monkeypatch.setattr(FusedScorer, "of", lambda _: None)
    monkeypatch.setattr(
        torch, "inference_mode", lambda *_: torch.no_grad()
    )  # in which no fake tensor can be made
    critic = CellCritic(layout).eval()
    monkeypatch.setattr(linear, "fill", lambda residual, *_: residual)
    monkeypatch.setattr(_Case, "name_pairs", lambda _, drop: torch.zeros(len(drop), dtype=torch.bool))
    with FakeTensorMode(allow_non_fake_inputs=True):
        vae = imagined(real)
        records = Records(
            torch.empty(9, 5), torch.empty(9, len(layout.categorical), dtype=torch.int64), torch.empty(9, 1)
        )
        found = attribute(vae, records, imagined(critic))
        for answer in (found, found.expected, expect(vae, records), score(vae, records)):
            tensors = [x for x in vars(answer).values() if isinstance(x, Tensor)]
            assert tensors
            assert {x.device.type for x in tensors} == {"cpu"}


@pytest.mark.parametrize("settings", GENERAL)
def test_a_gpu_s_model_fills_in_records_that_lie_on_the_cpu(
    settings: dict[str, object], layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the proposal on; the search for it asks for values."""
    layout = NUMBERS if settings is LINEAR else layout
    real = VAE(layout, replace(SHORT, **settings), (1, 2)).eval()  # type: ignore[arg-type]
    monkeypatch.setattr(generation, "_own_seed", lambda *_: 0)  # asks for the cells
    here = torch.Generator()  # there is none where no device is
    monkeypatch.setattr(torch, "Generator", lambda _: here)
    monkeypatch.setattr(torch, "_standard_gamma", lambda shape, _: torch.empty_like(shape))  # not in 2.11's
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
        vae = imagined(real)
        records = Records(
            torch.empty(9, 5), torch.empty(9, len(layout.categorical), dtype=torch.int64), torch.empty(9, 1)
        )
        n_latents = vae.recipe.latents_for(layout)
        proposal = FullGaussian(on_gpu(2, 1, n_latents), on_gpu(2, 1, n_latents, n_latents))
        answer = generation._answer(vae, records[0].to(THERE), proposal, 3, 0)
        assert answer.mean.device.type == answer.draws.categorical.device.type == THERE
        found = generation._assembled(vae, records, torch.arange(2), [answer, answer], 3)
        made = [found.std, *found.probabilities, found.records.numeric, found.draws[2].categorical]
        assert {x.device.type for x in made} == {"cpu"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("streamed", [False, True])
def test_a_gpu_repeats_what_it_recorded(
    streamed: bool, draw: Callable[..., Records], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recorded or kernel by kernel, with the records on the device or sent ahead of every step: the same
    weights.
    """
    records = numbers(draw(500, seed=1, missing=0.05))
    if streamed:
        monkeypatch.setattr(minibatches, "fits", lambda *_: False)
    found = fit(NUMBERS, records, SHORT, seed=0, device="cuda")
    monkeypatch.setattr(Run, "_take", _kernel_by_kernel(Run._take))
    expected = fit(NUMBERS, records, SHORT, seed=0, device="cuda")
    for a, b in zip(found.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_scores_records_that_are_sent_as_those_that_lie_there(draw: Callable[..., Records]) -> None:
    """In many slices, of a table whose columns are contiguous, as the pipeline's are."""
    records = numbers(draw(5000, seed=1, missing=0.05))
    vae = fit(NUMBERS, records, SHORT, seed=0, device="cuda")
    by_columns = Records(records.numeric.T.contiguous().T, records.categorical, records.context)
    scorer = Scorer(vae)
    scorer.size = 96
    sent, there = scorer(by_columns), scorer(records.to("cuda"))
    for name in ("anomaly_score", "reconstruction", "kl_divergence", "column_terms"):
        assert torch.equal(getattr(sent, name), getattr(there, name).cpu()), name


def _kernel_by_kernel(take: Callable[..., None]) -> Callable[..., None]:
    def plainly(run: Run, *args: object) -> None:
        run.recorder = None
        take(run, *args)

    return plainly
