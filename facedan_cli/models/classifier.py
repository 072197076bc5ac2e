"""The classifier of the source's identities, the last layer in training. Recognition does not use it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facedan_cli.config.heads import HEADS
from facedan_cli.models.dropout import BatchDropout

_ADAFACE_SPREAD, _ADAFACE_MOMENTUM, _ADAFACE_EPSILON, _ADAFACE_NORMS = 0.33, 0.01, 1e-3, (1e-3, 100.0)
"""Of adaface: h; the share of a batch in the running moments of the norms; the margin of clipping; bounds of norms."""

_BLOCK = 1024
"""Number of classes whose initial weights are drawn at a time."""


class Classifier(nn.Module):
    """The scores of the identities from features, after dropout.

    A score is w·x + b of the softmax head; s·cos θ, θ the angle between x and w, of arcface (Deng et al. 2019), cosface
    (Wang et al. 2018) and adaface (Kim et al. 2022); and ‖x‖·cos θ of sphereface (Liu et al. 2017). In the loss alone,
    a margin lowers the score of a row's own class; that of adaface depends on the row's norm among those of the last
    batches, whose running moments are buffers. The angular heads have no bias and compute in float32 at least, also
    under autocast.

    Args:
        features: length of a feature vector.
        classes: number of identities.
        head: one of `config.heads.HEADS`.
        margin: m of the head; its default where None.
        scale: s of arcface, cosface and adaface; the default where None.
        dropout: probability of dropout before the scores.
        local_classes: the classes of this process where the classifier is sharded (`training.classification`);
            None: all. The initial weights of a class do not depend on the sharding.

    Raises:
        ValueError: the head is unknown, has no such setting or not with this value, or no class would be held.
    """

    bias: nn.Parameter | None
    norm_mean: Tensor
    norm_std: Tensor

    def __init__(
        self,
        features: int,
        classes: int,
        *,
        head: str = "softmax",
        margin: float | None = None,
        scale: float | None = None,
        dropout: float = 0.0,
        local_classes: range | None = None,
    ) -> None:
        super().__init__()
        self.head = head
        self.margin, self.scale = _settings(head, margin, scale)
        self.classes = classes
        self.local_classes = range(classes) if local_classes is None else local_classes
        if len(self.local_classes) == 0:
            raise ValueError(f"{classes} classes cannot be sharded so that a process holds none")
        self.weight = nn.Parameter(_initial_weight(self.local_classes, classes, features))
        bias = nn.Parameter(torch.zeros(len(self.local_classes))) if head == "softmax" else None
        self.register_parameter("bias", bias)
        self.dropout = BatchDropout(dropout)
        if self.adapts_margin:  # the authors' first values
            self.register_buffer("norm_mean", torch.tensor(20.0))
            self.register_buffer("norm_std", torch.tensor(100.0))

    @property
    def adapts_margin(self) -> bool:
        """Whether the margin depends on the norms of the features."""
        return self.head == "adaface"

    @property
    def sharded(self) -> bool:
        """Whether this process holds a shard of the classes."""
        return len(self.local_classes) < self.classes

    def forward(self, x: Tensor) -> Tensor:
        """Scores without margin, shape (b, local classes), from features, shape (b, features)."""
        return self.scores(self.dropout(x))

    def scores(self, x: Tensor, sampled: Tensor | None = None) -> Tensor:
        """Scores from features that have been through dropout.

        Args:
            x: shape (b, features).
            sampled: which of the rows of `weight` take part, int64, shape (c,); None: all.

        Returns:
            Shape (b, c), at least float32.
        """
        weight: Tensor = self.weight
        bias: Tensor | None = self.bias
        if sampled is not None:
            weight = weight.index_select(0, sampled)
            bias = None if bias is None else bias.index_select(0, sampled)
        if self.head == "softmax":
            return _full(F.linear(x, weight, bias))
        with torch.autocast(x.device.type, enabled=False):
            x = _full(x)
            if self.head != "sphereface":
                x = self.scale * F.normalize(x)
            return F.linear(x, F.normalize(_full(weight)))

    @torch.no_grad()
    def observe(self, norms: Tensor) -> None:
        """Let the running moments follow the norms of a global batch, shape (B,); once a step, before its loss."""
        norms = _full(norms).clamp(*_ADAFACE_NORMS)
        self.norm_mean.lerp_(norms.mean().to(self.norm_mean.dtype), _ADAFACE_MOMENTUM)
        if len(norms) > 1:  # one row has no standard deviation
            self.norm_std.lerp_(norms.std().to(self.norm_std.dtype), _ADAFACE_MOMENTUM)

    def add_margin(
        self, scores: Tensor, rows: Tensor, columns: Tensor, x: Tensor, step: int, norms: Tensor | None = None
    ) -> Tensor:
        """Lower the score of each row's own class by the head's margin, in place but with adaface.

        Args:
            scores: from `scores`, shape (b, c).
            rows: rows whose class is among the c, int64, shape (n,).
            columns: their classes' columns, shape (n,).
            x: the features the scores are of, shape (b, features).
            step: of the training, from 1; sphereface's margin grows with it.
            norms: of the features before dropout, shape (b,), by which adaface's margin goes; None: those of `x`.

        Returns:
            `scores`; a copy of adaface, whose cosines are clipped.
        """
        if self.head == "softmax":
            return scores
        length = self.scale
        if self.head == "sphereface":
            length = torch.linalg.vector_norm(_full(x[rows]), dim=1).clamp(min=1e-12)
        cosine = (scores[rows, columns] / length).clamp(-1, 1)  # rounding may leave it
        if self.head == "arcface":
            cosine = arcface(cosine, self.margin)
        elif self.head == "cosface":
            cosine = cosine - self.margin
        elif self.adapts_margin:
            norms = torch.linalg.vector_norm(_full(x), dim=1) if norms is None else norms
            cosine = adaface(cosine, self._quality(norms[rows]), self.margin)
            limit = (1 - _ADAFACE_EPSILON) * self.scale
            scores = scores.clamp(-limit, limit)
        else:
            cosine = sphereface(cosine, int(self.margin), step)
        return scores.index_put_((rows, columns), length * cosine)

    @torch.no_grad()
    def _quality(self, norms: Tensor) -> Tensor:
        """Normalised norms of rows, in [−1, 1] (Kim et al. 2022, eq. 14), of any shape."""
        norms = _full(norms).clamp(*_ADAFACE_NORMS)
        return ((norms - self.norm_mean) / (self.norm_std + _ADAFACE_EPSILON) * _ADAFACE_SPREAD).clamp(-1, 1)

    def extra_repr(self) -> str:
        """The settings that `print(network)` shows."""
        shape = f"{self.weight.shape[1]}, {self.classes}, local_classes={self.local_classes}"
        return f"{shape}, head={self.head}, margin={self.margin}, scale={self.scale}"


def arcface(cosine: Tensor, margin: float) -> Tensor:
    """cos(θ + m) (Deng et al. 2019, eq. 3); cos θ − m·sin m where θ + m > π, as in the authors' code.

    There cos(θ + m) would rise again; the replacement falls with θ.

    Args:
        cosine: cos θ, in [−1, 1].
        margin: m, radians, in [0, π).
    """
    # At θ = 0 and π the slope of the sine has no bound; θ < 0.001 has no meaning in float32.
    sine = (1 - cosine.square()).clamp(min=1e-6).sqrt()
    moved = cosine * math.cos(margin) - sine * math.sin(margin)
    return torch.where(cosine > math.cos(math.pi - margin), moved, cosine - margin * math.sin(margin))


def adaface(cosine: Tensor, quality: Tensor, margin: float) -> Tensor:
    """cos(θ + g_angle) − g_add, g_angle = −m·q and g_add = m·q + m (Kim et al. 2022, eq. 11 to 13).

    θ and θ + g_angle are clipped as in the authors' code. A row of low quality gets a margin of the angle that helps it
    over the boundary, one of high quality a margin of the cosine.

    Args:
        cosine: cos θ, in [−1, 1].
        quality: q of each row, in [−1, 1], without a gradient.
        margin: m.
    """
    theta = cosine.clamp(-1 + _ADAFACE_EPSILON, 1 - _ADAFACE_EPSILON).acos()
    moved = (theta - margin * quality).clamp(_ADAFACE_EPSILON, math.pi - _ADAFACE_EPSILON)
    return moved.cos() - (margin * quality + margin)


def sphereface(cosine: Tensor, margin: int, step: int) -> Tensor:
    """(λ·cos θ + ψ(θ)) / (1 + λ), ψ(θ) = (−1)ᵏ·cos(mθ) − 2k for θ in [kπ/m, (k+1)π/m] (Liu et al. 2017, eq. 7).

    λ = max(5, 1000 / (1 + 0.12·step)), as in the authors' code: with ψ alone from the start it does not train.

    Args:
        cosine: cos θ, in [−1, 1].
        margin: m, at least 1.
        step: step of the training, from 1.
    """
    blend = max(5.0, 1000 / (1 + 0.12 * step))
    turns = (margin * cosine.detach().acos() / math.pi).floor().clamp(max=margin - 1)
    # cos(mθ) is a polynomial of cos θ (Chebyshev), whose slope is bounded where acos has none.
    before, multiple = torch.ones_like(cosine), cosine
    for _ in range(margin - 1):
        before, multiple = multiple, 2 * cosine * multiple - before
    psi = (1 - 2 * (turns % 2)) * multiple - 2 * turns
    return (blend * cosine + psi) / (1 + blend)


def _settings(head: str, margin: float | None, scale: float | None) -> tuple[float, float]:
    """Margin and scale of a head; 0 and 1 if it has none.

    Raises:
        ValueError: the head is unknown or cannot have them.
    """
    if head not in HEADS:
        raise ValueError(f"there is no head '{head}': {', '.join(HEADS)}")
    default = HEADS[head]
    for name, value, usual in (("margin", margin, default.margin), ("scale", scale, default.scale)):
        if usual is None and value is not None:
            raise ValueError(f"the head '{head}' has no {name}")
    margin = (default.margin or 0.0) if margin is None else margin
    scale = (default.scale or 1.0) if scale is None else scale
    most = math.pi if head == "arcface" else math.inf
    if not 0 <= margin < most or (head == "sphereface" and (margin < 1 or margin != int(margin))):
        raise ValueError(f"{margin} is no margin for the head '{head}'")
    if not 0 < scale < math.inf:
        raise ValueError(f"scale must be a positive number, not {scale}")
    return margin, scale


def _initial_weight(local: range, classes: int, features: int) -> Tensor:
    """The initial weights, N(0, 0.01²), shape (len(local), features).

    Each block of classes has its own generator, seeded from torch's random state: processes that start from the same
    state draw the weights that a single process would have drawn.
    """
    seed = int(torch.randint(1 << 62, (), device="cpu"))
    weight = torch.empty(len(local), features)
    for first in range(local.start - local.start % _BLOCK, local.stop, _BLOCK):
        random = torch.Generator().manual_seed(seed + first)
        block = range(first, min(first + _BLOCK, classes))
        drawn = torch.empty(len(block), features, device="cpu").normal_(std=0.01, generator=random)
        held = range(max(first, local.start), min(block.stop, local.stop))
        weight[held.start - local.start : held.stop - local.start] = drawn[held.start - first : held.stop - first]
    return weight


def _full(x: Tensor) -> Tensor:
    """The tensor in float32, or in float64 if it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
