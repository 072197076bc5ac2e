"""The training recipe of a run, its learning rate and its optimiser."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn, optim

from facedan_cli.config.models import Recipe
from facedan_cli.models.network import FaceNetwork


@dataclass(frozen=True, kw_only=True)
class Plan(Recipe):
    """A recipe, and the other settings of a training.

    Args:
        precision: "fp32", "bf16" or "fp16" of the network; losses and weights are always float32.
        grad_accum: parts of a batch that go through the network one by one.
        sample_rate: share of the identities that a step classifies among.
        compile: whether torch.compile makes the network faster.
    """

    seed: int
    checkpoint_every: int
    log_every: int
    precision: str = "fp32"
    grad_accum: int = 1
    sample_rate: float = 1.0
    compile: bool = False


def learning_rate(step: int, plan: Plan) -> float:
    """The learning rate of a step, from 1: constant, or one cycle: linear over a tenth of the steps, then a cosine."""
    if plan.schedule == "constant":
        return plan.lr
    rise = max(1, plan.iterations // 10)
    if step <= rise:
        return plan.lr * step / rise
    return plan.lr * 0.5 * (1 + math.cos(math.pi * (step - rise) / (plan.iterations - rise + 1)))


def make_optimizer(network: FaceNetwork, plan: Plan) -> optim.Optimizer:
    """The optimiser: groups for convolutions, other layers and classifier, each with `scale`, its multiple of the rate.

    With a multiple of 0 the convolutions need no gradient, which spares most of the backward pass.
    """
    convolutions, classifier = network.convolutions(), list(network.classifier.parameters())
    own = {id(parameter) for parameter in (*convolutions, *classifier)}
    between = [parameter for parameter in network.parameters() if id(parameter) not in own]
    if plan.backbone_lr_mult == 0:
        for parameter in convolutions:
            parameter.requires_grad_(False)
    groups = [
        {"params": convolutions, "scale": plan.backbone_lr_mult},
        {"params": between, "scale": 1.0},
        {"params": classifier, "scale": plan.classifier_lr_mult},
    ]
    if plan.optimizer == "sgd":
        # PyTorch's fused SGD leaves its momentum uninitialised where the first step overflows and is skipped.
        fused = plan.precision != "fp16"
        return optim.SGD(groups, lr=plan.lr, momentum=plan.momentum, weight_decay=plan.weight_decay, fused=fused)
    return optim.AdamW(groups, lr=plan.lr, weight_decay=plan.weight_decay, fused=True)


def set_rate(optimizer: optim.Optimizer, rate: float) -> None:
    """Set each group's learning rate to its multiple of a rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]


def replicated(network: FaceNetwork) -> list[nn.Parameter]:
    """The parameters that are the same in all processes: all but those of a sharded classifier."""
    own = {id(parameter) for parameter in network.classifier.parameters()} if network.classifier.sharded else set()
    return [parameter for parameter in network.parameters() if id(parameter) not in own]
