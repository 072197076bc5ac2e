"""Every combination of the penalty's options either works or is refused before anything is trained."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import ADAPT

from facedan_cli.adaptation.kernels import median_bandwidth
from facedan_cli.adaptation.penalty import Penalty
from facedan_cli.config.common import BANDWIDTHS, BETAS, ESTIMATORS, MEDIANS
from facedan_cli.config.discrepancies import DISCREPANCIES
from facedan_cli.config.models import NETWORKS
from facedan_cli.errors import UsageError
from facedan_cli.training.penalty_options import check_batch, parse_bandwidth, resolve_penalty

LAYERS = {"fc6": 40, "fc7": 6}
STEPS = 3


def features(batch: int, seed: int, *, shift: float = 0.0) -> dict[str, torch.Tensor]:
    """As of a network after ReLU: not negative, many zero."""
    random = torch.Generator().manual_seed(seed)
    return {
        layer: (torch.randn(batch, size, generator=random) + shift).relu().requires_grad_()
        for layer, size in LAYERS.items()
    }


def works(**options: Any) -> bool:
    """Whether the options are taken; then three steps must give numbers, and rows a gradient."""
    config = replace(ADAPT, **options)
    try:
        layers, bandwidth_multipliers = resolve_penalty(config, NETWORKS["vggface-mini"])
        check_batch(config)
    except UsageError:
        return False
    fixed = parse_bandwidth(config.bandwidth)
    batch = int(config.batch or 0)
    before = features(64, 0), features(64, 1, shift=0.5)
    medians = {layer: fixed or median_bandwidth(*(part[layer] for part in before), config.median) for layer in layers}
    penalty = Penalty(
        lambda_=0.5,
        layers=layers,
        discrepancy=config.discrepancy,
        bandwidth_multipliers=bandwidth_multipliers,
        kernel_weights=config.kernel_weights,
        estimator=config.estimator,
        bandwidths=None if config.bandwidth == "batch" else medians,
        running=config.bandwidth == "ema",
        median=config.median,
        memory_bank=config.memory_bank,
    )
    for step in range(1, STEPS + 1):
        source, target = features(batch, 2 * step), features(batch, 2 * step + 1, shift=0.5)
        value, found = penalty(source, target, step)
        value.backward()
        assert torch.stack([value, *found.values()]).isfinite().all()
        for domain, layer in itertools.product((source, target), layers):
            gradient = domain[layer].grad
            assert gradient is not None
            assert gradient.isfinite().all()
        for weights in penalty.weights.values():
            assert sum(weights) == pytest.approx(1)
            assert min(weights) >= 0
        penalty.update_memory_bank(source, target)
    frozen, _ = penalty.frozen()(features(5, 90), features(7, 91))
    assert frozen.isfinite()
    return True


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("kernel_weights", BETAS)
def test_small_and_odd_batches_with_each_estimator(estimator: str, kernel_weights: str) -> None:
    least = {"equal": 2, "optimal": 4 if estimator == "linear" else 3}[kernel_weights]
    for batch, memory_bank in itertools.product((2, 3, 4, 5), (0, 3)):
        taken = works(estimator=estimator, kernel_weights=kernel_weights, batch=batch, memory_bank=memory_bank)
        assert taken == (batch >= least and not (memory_bank and estimator == "linear"))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.fixed_dictionaries(
        {
            "estimator": st.sampled_from(ESTIMATORS),
            "discrepancy": st.sampled_from(tuple(DISCREPANCIES)),
            "kernel_weights": st.sampled_from(BETAS),
            "bandwidth": st.sampled_from((*BANDWIDTHS, "1e-12", "30", "1e24")),
            "median": st.sampled_from(MEDIANS),
            "layers": st.sampled_from((None, "fc7", "fc6:0.5,fc7")),
            "batch": st.integers(2, 9),
            "memory_bank": st.sampled_from((0, 1, 2, 7, 64)),
            "lambda_": st.sampled_from((0.0, 0.5, 10.0)),
        },
    ),
    st.one_of(
        st.fixed_dictionaries({"kernels": st.integers(0, 18)}),
        st.fixed_dictionaries(
            {"bandwidth_multipliers": st.sampled_from(("1", "1e-6,1e6", "0.25,1,4", "1e-40,1", "3,3"))}
        ),
    ),
)
def test_any_combination_works_or_is_refused(options: dict[str, Any], kernels: dict[str, Any]) -> None:
    works(**options, **kernels)
