"""The penalty's options: parsing, checks, and errors for options without effect."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from facedan_cli.adaptation.betas import LEAST_ROWS
from facedan_cli.adaptation.kernels import doubling_multipliers
from facedan_cli.config.common import BANDWIDTHS
from facedan_cli.config.discrepancies import DISCREPANCIES
from facedan_cli.config.fields import check_choices, spelling
from facedan_cli.config.models import NetworkEntry
from facedan_cli.config.training import AdaptConfig
from facedan_cli.errors import UsageError, did_you_mean

MOST_KERNELS = 16
"""Largest number of kernels: wider ones would be flat over all features."""

BANDWIDTH_RANGE, FACTOR_RANGE = (1e-12, 1e24), (1e-6, 1e6)
"""Ranges of γ and of its multiples: beyond them a kernel underflows in float32."""


def resolve_penalty(
    config: AdaptConfig, network: NetworkEntry, paths: Callable[[], Iterable[str]] = tuple
) -> tuple[Mapping[str, float], tuple[float, ...]]:
    """Check the penalty's options.

    Args:
        config: the given configuration.
        network: the network that is adapted.
        paths: gives the dotted paths of its modules, which are layers too.

    Returns:
        The layers with their weights, and the bandwidth multipliers.

    Raises:
        UsageError: an option has an impossible value, or one that the others would leave without effect.
    """
    layers = parse_layers(config.layers, network.layers, paths)
    check_choices(config)
    parse_bandwidth(config.bandwidth)
    if not 1 <= config.kernels <= MOST_KERNELS:
        raise UsageError(
            f"--kernels must be at least 1 and at most {MOST_KERNELS}, not {config.kernels}", "the paper uses 1 and 5"
        )
    if config.lambda_ is not None and not 0 <= config.lambda_ < math.inf:
        raise UsageError(f"--lambda must be a number from 0, not {config.lambda_}", "the paper uses 0.5")
    if not 0 <= config.keep < math.inf:
        raise UsageError(f"--keep must be a number from 0, not {config.keep}", "0, the default, is without it")
    for option, count in (("--memory-bank", config.memory_bank), ("--lambda-ramp", config.lambda_ramp)):
        if count < 0:
            raise UsageError(f"{option} must be at least 0, not {count}", "0, the default, is without it")
    bandwidth_multipliers = (
        doubling_multipliers(config.kernels)
        if config.bandwidth_multipliers is None
        else parse_multipliers(config.bandwidth_multipliers)
    )
    _refuse_what_has_no_effect(config, layers, network)
    return layers, bandwidth_multipliers


def penalty_values(layers: Mapping[str, float], bandwidth_multipliers: tuple[float, ...]) -> dict[str, Any]:
    """Layers and kernels as values of options in one normal form, so that equal settings are equal values."""
    doubling = bandwidth_multipliers == doubling_multipliers(len(bandwidth_multipliers))
    return {
        "layers": ",".join(layer if weight == 1 else f"{layer}:{weight:g}" for layer, weight in layers.items()),
        "kernels": len(bandwidth_multipliers),
        "bandwidth_multipliers": None if doubling else ",".join(f"{factor:g}" for factor in bandwidth_multipliers),
    }


def _refuse_what_has_no_effect(config: AdaptConfig, layers: Mapping[str, float], network: NetworkEntry) -> None:
    default = AdaptConfig(source="", target="")
    discrepancy = DISCREPANCIES[config.discrepancy]
    for name in discrepancy.idle:
        if getattr(config, name) != getattr(default, name):
            raise UsageError(
                f"{spelling(name)} means nothing for --discrepancy {config.discrepancy}", f"leave {spelling(name)} out"
            )
    if config.median != default.median and parse_bandwidth(config.bandwidth) is not None:
        raise UsageError(f"--median means nothing for --bandwidth {config.bandwidth}", "leave --median out")
    if config.memory_bank and config.estimator == "linear":
        raise UsageError(
            "--memory-bank means nothing for --estimator linear, which compares no row of a batch with past ones",
            "leave --memory-bank out, or use --estimator unbiased",
        )
    if discrepancy.joint and set(layers.values()) != {1.0}:
        raise UsageError(
            f"{config.discrepancy} measures all layers as one: they have no weights", "name the layers alone"
        )
    pooled = [layer for layer in layers if layer in network.pooled or layer not in network.layers]
    if pooled and config.backbone_lr_mult == 0:
        others = ",".join(layer for layer in network.layers if layer not in network.pooled)
        raise UsageError(f"--backbone-lr-mult 0 keeps what alone could change {pooled[0]}", f"give --layers {others}")


def check_batch(config: AdaptConfig) -> None:
    """Raise an error if a batch is too small for optimal kernel weights.

    Args:
        config: resolved.

    Raises:
        UsageError: fewer rows than have a covariance.
    """
    least = LEAST_ROWS[config.estimator]
    if config.kernel_weights == "optimal" and int(config.batch or 0) < least:
        raise UsageError(
            f"--kernel-weights optimal with --estimator {config.estimator} needs a --batch of {least} at least, "
            f"not {config.batch}: fewer images show no covariance",
            "raise --batch, or leave --kernel-weights out",
        )


def parse_layers(
    text: str | None, known: tuple[str, ...], paths: Callable[[], Iterable[str]] = tuple
) -> dict[str, float]:
    """The layers of "fc6,fc7" or "fc6:0.5,fc7:1" with their weights, in the order of the network; of None all known.

    Args:
        text: --layers.
        known: the network's named layers.
        paths: gives the dotted paths of its modules in order; called where a name is none of the known.

    Raises:
        UsageError: a layer is unknown or named twice, none is named, or a weight is not a positive number.
    """
    if text is None:
        return dict.fromkeys(known, 1.0)
    layers: dict[str, float] = {}
    offered = known
    for part in filter(None, (part.strip() for part in text.split(","))):
        layer, colon, weight = (piece.strip() for piece in part.partition(":"))
        if layer not in offered:
            offered = (*(path for path in paths() if path not in known), *known)
        if layer not in offered:
            raise UsageError(f"there is no layer '{layer}' to adapt", did_you_mean(layer, offered, of="layers"))
        if layer in layers:
            raise UsageError(f"--layers must name each layer once, not '{text}'", f"layers: {', '.join(known)}")
        layers[layer] = _positive(weight, FACTOR_RANGE) if colon else 1.0
        if math.isnan(layers[layer]):
            raise UsageError(f"'{weight}' is no weight of a layer", "give a positive number, as in fc6:0.5,fc7:1")
    if not layers:
        raise UsageError("--layers names no layer", f"layers: {', '.join(known)}")
    return {layer: layers[layer] for layer in offered if layer in layers}


def parse_multipliers(text: str) -> tuple[float, ...]:
    """The bandwidth multipliers of a text such as "0.5,1,2", rising.

    Raises:
        UsageError: one is not a positive number that float32 has kernels of, one is named twice, or they are too many.
    """
    factors = tuple(_positive(part, FACTOR_RANGE) for part in text.split(","))
    if any(map(math.isnan, factors)) or len(set(factors)) < len(factors) or len(factors) > MOST_KERNELS:
        raise UsageError(
            f"--bandwidth-multipliers cannot be '{text}'",
            f"give at most {MOST_KERNELS} different positive numbers between 1e-6 and 1e6, as in 0.25,1,4",
        )
    return tuple(sorted(factors))


def parse_bandwidth(text: str) -> float | None:
    """The number given for γ; None for "frozen", "ema" and "batch".

    Raises:
        UsageError: it is neither.
    """
    if text in BANDWIDTHS:
        return None
    value = _positive(text, BANDWIDTH_RANGE)
    if math.isnan(value):
        raise UsageError(
            f"--bandwidth does not know '{text}'",
            "give frozen, ema, batch, or γ as a positive number between 1e-12 and 1e24",
        )
    return value


def _positive(text: str, limits: tuple[float, float]) -> float:
    """The positive number in a text if it is within limits, else NaN."""
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if limits[0] <= value <= limits[1] else math.nan
