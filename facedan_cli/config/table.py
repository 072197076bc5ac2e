"""What `facedan table` can be asked."""

from __future__ import annotations

from dataclasses import dataclass

from facedan_cli.config.common import EvaluateConfig
from facedan_cli.config.training import AdaptConfig, PretrainConfig

TABLE_PROTOCOLS = ("gbu", "feret", "identify", "pairs")
TABLE_FORMATS = ("text", "markdown", "latex", "csv")
TABLE_ROWS = ("lbp", "pcanet", "vgg", "source", "control", "s7", "s67", "m7", "m67", "fusion")
"""The rows of `table` in order: the paper's, the control λ = 0 and the fusion of the adapted models."""


@dataclass(frozen=True, kw_only=True)
class TableConfig:
    """The paper's table: every row is what `pretrain` and `adapt` train and `evaluate` measures.

    Args:
        rows: of `TABLE_ROWS`.
        seeds: each seed has models of its own.
        pretrain: stage 1; its seed is replaced.
        adapt: stage 2; its seed, λ, kernels and layers are those of seed and row.
        evaluate: how models are measured.
    """

    rows: tuple[str, ...]
    seeds: tuple[int, ...] = (0,)
    pretrain: PretrainConfig
    adapt: AdaptConfig
    evaluate: EvaluateConfig
