"""The options of `facedan table`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import Field, dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Any

from facedan_cli.config.common import INTERVALS, EvaluateConfig
from facedan_cli.config.fields import COMMON, setting, strict_setting
from facedan_cli.config.models import CLASSICAL, NETWORKS
from facedan_cli.config.protocols import PROTOCOLS
from facedan_cli.config.training import AdaptConfig, PretrainConfig

TABLE_PROTOCOLS = tuple(name for name, entry in PROTOCOLS.items() if entry.tabled)
TABLE_FORMATS = ("text", "markdown", "latex", "csv")
TABLE_ROWS = (
    *(*CLASSICAL, "vgg", "source", "control", "augmented", "adabn", "whiten"),
    *("ddc", "s7", "s67", "m7", "m67", "fusion", "chosen"),
)
"""The rows in order: the paper's, the control λ = 0, also with augmentation, the fusion of the adapted models, and
the label-free choice.

Methods joined by + are rows as well; they come last.
"""


@dataclass(frozen=True, kw_only=True)
class TableConfig:
    """The paper's table: `pretrain` and `adapt` train each row, `evaluate` measures it.

    Args:
        rows: names from `TABLE_ROWS`, and methods as `adapt --method` takes them.
        seeds: seeds of the trainings; each has models of its own.
        pretrain: stage 1, but for its seed.
        adapt: stage 2, but for its seed, λ, kernels and layers, which seed and row determine.
        evaluate: settings of the measurement; its models and embeddings are further rows.
    """

    rows: tuple[str, ...]
    seeds: tuple[int, ...] = (0,)
    pretrain: PretrainConfig
    adapt: AdaptConfig
    evaluate: EvaluateConfig


TESTED = "Evaluation"
"""The panel of the options of protocols."""


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """The options of `table` without the inputs of its protocol; None: the default of the command it is for."""

    by: str = setting(
        help=f"Protocol of the evaluation: {', '.join(TABLE_PROTOCOLS)}.",
        argument=True,
        choices=TABLE_PROTOCOLS,
        metavar="PROTOCOL",
    )
    source: str = setting(
        help="Labelled faces, one folder per identity: a path or a data set's name.", complete="dataset"
    )
    target: str = setting(help="Unlabelled faces, as `adapt` takes them.", complete="dataset")
    rows: str | None = setting(
        None,
        f"Rows, such as source,m67, from {', '.join(TABLE_ROWS)}, or methods joined by +. Default: all but augmented "
        "(the control with --augment all), adabn, whiten, ddc (s7 by its other name) and chosen (adapt --select); vgg "
        "needs --init, lbp and pcanet belong to feret.",
        leading=True,
    )
    methods: str | None = setting(
        None,
        "Further rows, methods as `adapt --method` takes them, such as whiten,mmd+whiten.",
        suggest=("whiten", "mmd+whiten", "adabn,whiten"),
        leading=True,
    )
    also: tuple[str, ...] = setting(
        (),
        "Further row, as `evaluate --model` takes it, such as an ONNX file; repeatable.",
        complete="model",
        leading=True,
    )
    embeddings: tuple[str, ...] = setting(
        (), "Further row, as `evaluate --embeddings` takes it; repeatable.", leading=True
    )
    seeds: str = setting("0", "Seeds of the trainings, such as 0,1,2.", leading=True)
    model: str | None = setting(None, "Network. Default: that of `pretrain`.", suggest=NETWORKS, leading=True)
    init: str | None = setting(None, "Initial weights of stage 1, and the row vgg.", complete="run", leading=True)
    pretrain_iterations: int | None = setting(
        None, "Training steps of stage 1. Default: those of `pretrain`.", leading=True
    )
    iterations: int | None = setting(None, "Training steps of stage 2. Default: those of `adapt`.", leading=True)
    lambda_: float | None = setting(None, "λ, the weight of the penalty. Default: that of `adapt`.", leading=True)
    far: tuple[str, ...] = setting(
        (), "False-accept rate; repeatable. Default: that of `evaluate`.", panel=TESTED, leading=True
    )
    ci: str | None = setting(
        None,
        "95 % intervals of a single seed: bootstrap, wilson or none. Default: those of `evaluate`.",
        choices=INTERVALS,
        panel=TESTED,
        leading=True,
    )
    replicates: int | None = setting(
        None, "Bootstrap replicates. Default: those of `evaluate`.", panel=TESTED, leading=True
    )
    format: str = setting(
        "text", f"Printed format: {', '.join(TABLE_FORMATS)}; all are written.", choices=TABLE_FORMATS, leading=True
    )
    strict: bool = strict_setting()
    workers: int | None = setting(None, "Threads that decode images; 0: one per core.", panel=COMMON)
    device: str | None = setting(
        None, "Device: auto, cpu, cuda or cuda:N.", suggest=("auto", "cpu", "cuda"), panel=COMMON
    )


def table_option(protocol: str, one: Field[Any]) -> str:
    """The field of `TABLE_INPUTS` for an input of a protocol; a positional input has the protocol's name."""
    return protocol if one.metadata["argument"] else one.name


def _inputs() -> Iterator[tuple[str, Any, Any]]:
    """Yield name, type and field of each input of the protocols of `table`; a shared input comes once."""
    helps: dict[str, dict[str, list[str]]] = {}
    for protocol in TABLE_PROTOCOLS:
        for one in fields(PROTOCOLS[protocol].inputs):
            helps.setdefault(table_option(protocol, one), {}).setdefault(one.metadata["help"], []).append(protocol)
    for protocol in TABLE_PROTOCOLS:
        for one in fields(PROTOCOLS[protocol].inputs):
            name = table_option(protocol, one)
            if name in helps:
                help = " ".join(f"For {', '.join(those)}: {text}" for text, those in helps.pop(name).items())
                facts = {**one.metadata, "help": help, "panel": TESTED, "argument": False}
                flag = one.default is False
                kind = bool if flag else Path | None if "Path" in str(one.type) else str | None
                yield name, kind, field(default=False if flag else None, metadata=facts)


TABLE_INPUTS: type[Any] = make_dataclass("TableInputs", _inputs(), frozen=True, kw_only=True)
"""The options of `table` that it hands on to the protocol."""
