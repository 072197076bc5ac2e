"""γ of each layer before adaptation: a given number, or the median over a sample of both domains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch

from facedan_cli.adaptation.kernels import median_bandwidth
from facedan_cli.adaptation.penalty import on_sphere
from facedan_cli.config.discrepancies import DISCREPANCIES
from facedan_cli.config.training import AdaptConfig
from facedan_cli.data.batches import BatchStream
from facedan_cli.distributed import DistEnv
from facedan_cli.errors import FacedanError
from facedan_cli.json_files import read_object, tell_odd
from facedan_cli.models.network import FaceNetwork
from facedan_cli.runs import Run
from facedan_cli.training.datasets import BANDWIDTH_SEED
from facedan_cli.training.penalty_options import parse_bandwidth
from facedan_cli.training.step import DTYPES, Features
from facedan_cli.workspace import write_json

BANDWIDTH_SAMPLE = 512
"""Number of images of each domain whose distances give the frozen bandwidth."""


def initial_bandwidths(
    config: AdaptConfig,
    layers: Iterable[str],
    run: Run,
    ranks: DistEnv,
    network: FaceNetwork,
    streams: tuple[BatchStream, BatchStream],
    seed: int,
) -> Mapping[str, float] | None:
    """γ of each layer, kept in the run's bandwidths.json for resuming; None if each batch has its own.

    Args:
        config: resolved.
        layers: adapted layers.
        run: run that keeps the bandwidths.
        ranks: which process this is; the first one writes.
        network: the initial one.
        streams: batches of source and target.
        seed: seed of the dropout in the sample.

    Raises:
        FacedanError: the features of the sample have no median distance.
    """
    fixed = parse_bandwidth(config.bandwidth)
    if fixed is not None:
        return dict.fromkeys(layers, fixed)
    if config.bandwidth == "batch" or not DISCREPANCIES[config.discrepancy].kernels:
        return None
    kept = run.directory / "bandwidths.json"
    if run.state.exists() and kept.exists():
        try:
            found = read_object(kept)
            return {layer: _positive(found.get(layer)) for layer in layers}
        except ValueError as error:  # measured again: the network is still the initial one
            tell_odd(kept, error)
    source, target = (
        on_sphere(features) if config.normalise_features else features
        for features in _sample_features(network, streams, DTYPES[config.precision], seed)
    )
    try:
        bandwidths = {layer: median_bandwidth(source[layer], target[layer], config.median) for layer in layers}
    except ValueError as error:
        raise FacedanError(f"no bandwidth: {error}", f"pretrain another model than {config.init}") from error
    if ranks.first:
        write_json(kept, bandwidths)
    return bandwidths


def _positive(value: object) -> float:
    if not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ValueError(f"{value!r} is no bandwidth")
    return float(value)


@torch.no_grad()
def _sample_features(
    network: FaceNetwork, streams: tuple[BatchStream, BatchStream], dtype: torch.dtype, seed: int
) -> tuple[Features, Features]:
    """Features of both domains by layer, (n, d) float32, with dropout, as in the penalty."""
    source, target = streams
    device = next(network.parameters()).device
    network.train()
    found = []
    for step in range(-(-BANDWIDTH_SAMPLE // source.batch)):
        torch.manual_seed(int(np.random.SeedSequence((seed, BANDWIDTH_SEED, step)).generate_state(1)[0]))
        images = torch.cat([source[step][0], target[step][0]]).to(device)  # (2·batch, 3, crop, crop)
        with (
            torch.autocast(device.type, dtype, enabled=dtype != torch.float32),
            network.batch_statistics(source.batch, len(images), follow=False),
        ):
            found.append({layer: rows.float() for layer, rows in network(images).items()})

    def of(part: slice) -> Features:
        return {layer: torch.cat([features[layer][part] for features in found]) for layer in network.layers}

    return of(slice(source.batch)), of(slice(source.batch, None))
