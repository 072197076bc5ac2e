"""The methods of adaptation, a row each, and how several are joined."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from facedan_cli.errors import UsageError, did_you_mean


@dataclass(frozen=True)
class MethodEntry:
    """A method of `adapt`.

    Args:
        help: what it does, for the help of --method.
        options: the fields of `AdaptConfig` that mean nothing without it.
        trains: whether it changes weights by gradients; such methods share one training.
    """

    help: str
    options: tuple[str, ...] = ()
    trains: bool = False


PENALTY_OPTIONS = (
    *("kernels", "lambda_", "lambda_ramp", "discrepancy", "estimator", "bandwidth", "median"),
    *("bandwidth_multipliers", "kernel_weights", "memory_bank", "normalise_features"),
)

METHODS: Mapping[str, MethodEntry] = {
    "mmd": MethodEntry("trains with the penalty", PENALTY_OPTIONS, trains=True),
    "restyle": MethodEntry(
        "trains on source images in the looks of target images", ("restyle_share", "restyle_by"), trains=True
    ),
    "masks": MethodEntry("trains on source faces with drawn masks", ("mask_share",), trains=True),
    "adabn": MethodEntry(
        "takes the statistics of batch normalisation from the target, without training; Li et al. 2017", ("adabn_mix",)
    ),
    "whiten": MethodEntry(
        "whitens embeddings by the target's mean and covariance, without training",
        ("whiten_power", "whiten_rank", "whiten_flip"),
    ),
}
"""The methods, in the order in which they are carried out."""


def methods_of(text: str) -> tuple[str, ...]:
    """The methods in a text such as "mmd+whiten", in the order in which they are carried out.

    Raises:
        UsageError: one is unknown, or there is none.
    """
    asked = [name.strip() for name in text.split("+")]
    for name in asked:
        if name not in METHODS:
            raise UsageError(f"--method does not know '{name}'", did_you_mean(name, METHODS))
    return tuple(name for name in METHODS if name in asked)


def stages_of(text: str) -> tuple[str, ...]:
    """The stages of a text of methods: those that train together, then each that does not.

    >>> stages_of("whiten+mmd")
    ('mmd', 'whiten')
    """
    methods = methods_of(text)
    trained = "+".join(name for name in methods if METHODS[name].trains)
    return tuple(filter(None, (trained, *(name for name in methods if not METHODS[name].trains))))


def trains(stage: str) -> bool:
    """Whether a stage changes weights by gradients."""
    return METHODS[methods_of(stage)[0]].trains


def idle_options(text: str) -> tuple[str, ...]:
    """The options that belong to other methods than those of a text."""
    methods = methods_of(text)
    return tuple(name for method, entry in METHODS.items() if method not in methods for name in entry.options)
