"""Options that pretrain and adapt share."""

from __future__ import annotations

from typing import Annotated

from facedan_cli.cli.options import option
from facedan_cli.config.common import CACHES, PRECISIONS
from facedan_cli.config.training import HEADS

_HEAD, _SPEED, _FILES = "Classification head", "Speed and memory", "Logs and checkpoints"

_MARGINS = ", ".join(f"{name} {head.margin:g}" for name, head in HEADS.items() if head.margin)
_SCALES = ", ".join(f"{name} {head.scale:g}" for name, head in HEADS.items() if head.scale)

HoldPeopleOption = Annotated[
    int | None,
    option(
        "People of the source, a tenth at most, whom no training sees: adapt --select verifies on them. Default: 0; of "
        "adapt as many as the pretraining held aside.",
        "--hold-people",
        min=0,
        show_default=False,
    ),
]
MarginOption = Annotated[
    float | None,
    option(f"Margin of the head. Default: {_MARGINS}.", "--margin", show_default=False, rich_help_panel=_HEAD),
]
ScaleOption = Annotated[
    float | None,
    option(
        f"What the head multiplies cosines by. Default: {_SCALES}.",
        "--scale",
        show_default=False,
        rich_help_panel=_HEAD,
    ),
]
SampleRateOption = Annotated[
    float,
    option(
        "Share of all people that a step classifies among; its own people are always in it (partial FC).",
        "--sample-rate",
        rich_help_panel=_HEAD,
    ),
]
ShardOption = Annotated[
    bool,
    option(
        "Each process of torchrun holds only its share of the classifier: for very many people.",
        "--shard-classifier",
        rich_help_panel=_HEAD,
    ),
]
PrecisionOption = Annotated[
    str,
    option(
        "Of the network's arithmetic: fp32, bf16, fp16; auto is bf16 on GPUs that have it, else fp32.",
        "--precision",
        complete=PRECISIONS,
        rich_help_panel=_SPEED,
    ),
]
CompileOption = Annotated[
    bool, option("Compile the network with torch.compile first.", "--compile", rich_help_panel=_SPEED)
]
GradAccumOption = Annotated[
    int,
    option(
        "Send each batch through the network in N parts: the same step in less memory.",
        "--grad-accum",
        rich_help_panel=_SPEED,
    ),
]
CacheOption = Annotated[
    str,
    option(
        "Decoded faces in memory (ram), in one mapped file in the workspace (disk), or decoded in each epoch (none); "
        "auto is ram where they take up to 2 GiB, else none.",
        "--cache",
        complete=CACHES,
        rich_help_panel=_SPEED,
    ),
]
CheckpointEveryOption = Annotated[
    int,
    option(
        "Every N steps save what an interrupted run goes on from, and measure the loss on images held aside: the best "
        "step's network is kept as best.safetensors.",
        "--checkpoint-every",
        rich_help_panel=_FILES,
    ),
]
KeepEveryOption = Annotated[
    int,
    option(
        "Keep the network of every N-th step too; a multiple of --checkpoint-every. 0: only best and last.",
        "--keep-every",
        rich_help_panel=_FILES,
    ),
]
LogEveryOption = Annotated[
    int, option("Write a line of metrics.jsonl every N steps.", "--log-every", rich_help_panel=_FILES)
]
TensorboardOption = Annotated[
    bool, option("Write TensorBoard's events as well.", "--tensorboard", rich_help_panel=_FILES)
]


def head_option(default: str) -> object:
    """--head, whose default differs between the commands."""
    return option(
        f"softmax, or with a margin: arcface, cosface, sphereface. Default: {default}.",
        show_default=False,
        complete=tuple(HEADS),
        rich_help_panel=_HEAD,
    )
