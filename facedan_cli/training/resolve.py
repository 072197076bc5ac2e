"""Resolved configurations: the defaults of each stage are filled in and everything is checked in one step."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from facedan_cli.config.common import UNTRAINED_OPTIONS, options
from facedan_cli.config.fields import check_choices, former_names, spelling
from facedan_cli.config.looks import AUGMENTATIONS, RESTYLINGS, spelling_of
from facedan_cli.config.methods import METHODS, methods_of, stages_of, trains
from facedan_cli.config.networks import network_entry, network_settings
from facedan_cli.config.training import AdaptConfig, PretrainConfig, TrainingConfig, resolve
from facedan_cli.devices import resolve_device
from facedan_cli.distributed import DistEnv
from facedan_cli.errors import UsageError, did_you_mean
from facedan_cli.models.checkpoint import ModelCard, batch_norm_of, embedding_length, layer_paths, module_paths
from facedan_cli.models.input_normalisation import normalisation_of
from facedan_cli.models.network import untrained
from facedan_cli.training.penalty_options import check_batch, penalty_values, resolve_penalty

IDENTITIES_TO_SELECT_BY = 100
"""Identities of the source that --select holds out for a published network, which knows none of them."""


def resolve_pretrain(config: PretrainConfig) -> PretrainConfig:
    """The configuration of stage 1 with all values that network and machine determine.

    Raises:
        UsageError: naming the option that cannot be.
    """
    check_choices(config)
    if config.gallery is not None:
        raise UsageError(f"--gallery means nothing for --model {config.model}", "it is for --model pcanet")
    settings = network_settings(config)
    _check_train_from(config, lambda: module_paths(config.model, settings))
    return resolve(
        config,
        network_entry(config.model, settings).pretrain,
        batch_norm=_batch_norm(config, config.model, settings, fresh=config.init is None),
        holdout_identities=config.holdout_identities or 0,
        augment=spelling_of("--augment", config.augment, AUGMENTATIONS),
        precision=resolve_precision(config.precision, config.device),
    )


def resolve_adapt(
    config: AdaptConfig, card: ModelCard, init: Path
) -> tuple[AdaptConfig, Mapping[str, float], tuple[float, ...]]:
    """The configuration of stage 2 with all values that initial network and machine determine.

    Args:
        config: the given configuration.
        card: description of the initial network.
        init: its checkpoint; without --init the name of its run is the resolved value.

    Returns:
        The configuration, the layers with their weights, and the bandwidth multipliers. Equal settings give equal
        configurations, whether they come from options or from the config.toml of a run.

    Raises:
        UsageError: naming the option that cannot be.
    """
    network = card.entry
    layers, bandwidth_multipliers = resolve_penalty(config, network, lambda: layer_paths(card))
    _check_train_from(config, lambda: layer_paths(card), layers)
    resolved = resolve(
        config,
        network.adapt,
        init=config.init or init.parents[1].name,
        holdout_identities=_holdout_identities(config, card),
        augment=spelling_of("--augment", config.augment, AUGMENTATIONS),
        restyle_by=spelling_of("--restyle-by", config.restyle_by, RESTYLINGS),
        precision=resolve_precision(config.precision, config.device),
        batch_norm=_batch_norm(config, card.model, card.network, fresh=False),
        input_normalisation=config.input_normalisation or normalisation_of(card.config),
        **_head_of(config, card),
        **penalty_values(layers, bandwidth_multipliers),
    )
    check_batch(resolved)
    return resolved, layers, bandwidth_multipliers


def _check_train_from(config: TrainingConfig, paths: Callable[[], list[str]], layers: Iterable[str] = ()) -> None:
    """Raise an error for a --train-from that is no module, or leaves a layer to adapt as it is.

    Args:
        config: the given configuration.
        paths: gives the modules of the network in order.
        layers: layers to adapt.

    Raises:
        UsageError: naming the module or the layer.
    """
    first = config.train_from
    if first is None:
        return
    modules = paths()
    if first not in modules:
        raise UsageError(f"there is no module '{first}' to train from", did_you_mean(first, modules, of="modules"))
    before = [name for name in untrained(first, modules) if not first.startswith(f"{name}.")]
    if fixed := [layer for layer in layers if layer in before]:
        raise UsageError(
            f"--train-from {first} keeps all that could change the layer {fixed[0]}",
            f"train from {fixed[0]}, or before",
        )


def check_method(config: AdaptConfig, card: ModelCard) -> None:
    """Raise an error for a method that the network, the processes or another option rule out.

    Raises:
        UsageError: naming the option.
    """
    check_choices(config)
    _check_ranges(config)
    methods = methods_of(config.method)
    for method, entry in METHODS.items():
        for name in entry.options if method not in ("mmd", *methods) else ():
            if getattr(config, name) != getattr(AdaptConfig, name):
                option = spelling(name)
                raise UsageError(f"{option} means nothing without --method {method}", f"leave {option} out")
    if config.select and DistEnv.of(os.environ).count > 1:
        raise UsageError(
            "--select is done by one process", "make its trainings by torchrun without --select: they are taken over"
        )
    untrained = [method for method in methods if not METHODS[method].trains]
    if not untrained:
        return
    other = config.input_normalisation not in (None, normalisation_of(card.config))
    if other and not trains(stages_of(config.method)[0]):
        raise UsageError(
            f"--input-normalisation {config.input_normalisation} needs training, and {untrained[0]} does not train",
            "leave it out, or give it to pretrain",
        )
    if config.select:
        raise UsageError(f"--select means nothing for --method {config.method}, which has no λ", "leave --select out")
    if "adabn" in methods and not batch_norm_of(card.model, card.network)[0]:
        raise UsageError(
            f"--method adabn needs batch normalisation, and {card.model} has none", "use --method mmd, the default"
        )
    length = embedding_length(card)
    if config.whiten_rank is not None and not 1 <= config.whiten_rank <= length:
        raise UsageError(
            f"--whiten-rank must be from 1 to {length}, the length of the embedding, not {config.whiten_rank}",
            "leave it out for all directions",
        )
    if DistEnv.of(os.environ).count > 1:
        raise UsageError(f"--method {untrained[0]} is done by one process", "start it without torchrun")


def _check_ranges(config: AdaptConfig) -> None:
    """Raise an error for values of the methods' own options that cannot be."""
    for name in ("restyle_share", "mask_share", "adabn_mix"):
        if not 0 <= getattr(config, name) <= 1:
            raise UsageError(
                f"{spelling(name)} must be a share from 0 to 1, not {getattr(config, name)}",
                "leave it out for the default",
            )
    if spelling_of("--restyle-by", config.restyle_by, RESTYLINGS) == "none":
        raise UsageError("--restyle-by none would change nothing", "leave restyle out of --method")
    if not 0 <= config.whiten_power <= 0.5:
        raise UsageError(
            f"--whiten-power must be from 0 to 0.5, not {config.whiten_power}",
            "0 centres only, 0.5 whitens fully; leave it out for the default",
        )


def of_method(values: Mapping[str, Any], method: str) -> dict[str, Any]:
    """Those of the options of `adapt`, under their names or those on disk, that a stage of its method uses."""
    if trains(method):
        return dict(values)
    former = {name: old for old, name in former_names(AdaptConfig).items()}
    own = (*UNTRAINED_OPTIONS, *METHODS[method].options)
    used = {former.get(name, name) for name in own} | {*own}
    return {key: value for key, value in values.items() if key in used}


def _batch_norm(config: TrainingConfig, model: str, settings: Mapping[str, str] | None, *, fresh: bool) -> str | None:
    """--batch-norm, None where it is the usual mode of the network and the stage.

    Args:
        config: the given configuration.
        model: name of the network.
        settings: settings of a network without a row.
        fresh: whether the training starts from random weights.

    Raises:
        UsageError: the network has no batch normalisation, or a batch is computed in parts, which have no statistics
            of the whole.
    """
    asked = config.batch_norm
    if asked is None and config.grad_accum == 1:
        return None
    layers, frozen = batch_norm_of(model, settings)
    usual = "source" if fresh and not frozen else "frozen"
    if asked is not None and not layers:
        raise UsageError(
            f"--batch-norm means nothing for {model}, which has no batch normalisation", "leave --batch-norm out"
        )
    if layers and config.grad_accum > 1 and (asked or usual) in ("source", "joint"):
        raise UsageError(
            f"--batch-norm {asked or usual} needs the whole batch at once, not in {config.grad_accum} parts",
            "leave --grad-accum out, or give --batch-norm frozen",
        )
    return None if asked == usual else asked


def resolve_precision(precision: str, device: str) -> str:
    """The precision; "auto" becomes bfloat16 on GPUs that compute in it, else float32."""
    if precision != "auto":
        return precision
    chosen = resolve_device(device)
    return "bf16" if chosen.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def check_processes(config: TrainingConfig, identities: int) -> None:
    """Raise an error if batch or identities cannot be divided among the processes or parts.

    Args:
        config: resolved.
        identities: number of identities of the source.

    Raises:
        UsageError: naming the option.
    """
    count = DistEnv.of(os.environ).count
    batch = int(config.batch or 0)
    if config.grad_accum * count > batch:
        what = f"{config.grad_accum} parts" if count == 1 else f"{count} processes times {config.grad_accum} parts"
        raise UsageError(f"a batch of {batch} cannot be divided into {what}", "lower --grad-accum or raise --batch")
    if config.shard_classifier and identities < count:
        raise UsageError(
            f"{identities} identities cannot be divided among {count} processes", "leave --shard-classifier out"
        )
    if config.shard_classifier and config.precision == "fp16":
        raise UsageError(
            "--shard-classifier does not go with --precision fp16: processes would disagree on which steps overflow",
            "use --precision bf16",
        )
    if config.keep_every % config.checkpoint_every:
        raise UsageError(
            f"--keep-every {config.keep_every} is no multiple of --checkpoint-every {config.checkpoint_every}",
            "networks are kept at checkpoints",
        )


def _holdout_identities(config: AdaptConfig, card: ModelCard) -> int:
    """The number of held-out identities, which must be that of the pretraining; the network knows the others."""
    if card.stage == "weights":  # a published network, which knows no identity of the source
        usual = IDENTITIES_TO_SELECT_BY if config.select else 0
        return usual if config.holdout_identities is None else config.holdout_identities
    held_out = int(card.config.get("hold_people") or 0)
    if config.holdout_identities not in (None, held_out):
        raise UsageError(
            f"--holdout-identities {config.holdout_identities} cannot be: {card.run} held out {held_out}",
            "leave it out, or pretrain with as many",
        )
    return held_out


def _head_of(config: AdaptConfig, card: ModelCard) -> dict[str, Any]:
    """The settings of the initial network's head that no option overrides; none for another head."""
    if config.head is not None and config.head != card.head.get("head"):
        return {}
    given = options(config)
    return {key: value for key, value in card.head.items() if given[key] is None}
