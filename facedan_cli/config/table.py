"""The options of `facedan table`."""

from __future__ import annotations

from dataclasses import dataclass

from facedan_cli.config.common import EvaluateConfig
from facedan_cli.config.training import AdaptConfig, PretrainConfig

TABLE_PROTOCOLS = ("gbu", "feret", "identify", "pairs")
TABLE_FORMATS = ("text", "markdown", "latex", "csv")
TABLE_ROWS = ("lbp", "pcanet", "vgg", "source", "control", "s7", "s67", "m7", "m67", "fusion")
"""The rows in order: the paper's, the control λ = 0, and the fusion of the adapted models."""


@dataclass(frozen=True, kw_only=True)
class TableConfig:
    """The paper's table: `pretrain` and `adapt` train each row, `evaluate` measures it.

    Args:
        rows: of `TABLE_ROWS`.
        seeds: seeds of the trainings; each has models of its own.
        pretrain: stage 1, but for its seed.
        adapt: stage 2, but for its seed, λ, kernels and layers, which seed and row determine.
        evaluate: how models are measured.
    """

    rows: tuple[str, ...]
    seeds: tuple[int, ...] = (0,)
    pretrain: PretrainConfig
    adapt: AdaptConfig
    evaluate: EvaluateConfig
