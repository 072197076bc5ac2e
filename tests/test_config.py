from __future__ import annotations

import tomllib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facedan_cli.config.common import as_toml, hashed_options, options
from facedan_cli.config.fields import check_choice, former_names
from facedan_cli.config.models import NETWORKS
from facedan_cli.config.training import (
    AdaptConfig,
    PretrainConfig,
    check_training,
    resolve,
)
from facedan_cli.errors import UsageError

PAPER = NETWORKS["vggface"].pretrain
# A control character that JSON, unlike TOML, leaves as it is, and halves of characters, are in no name or path.
TEXTS = st.text(st.characters(exclude_characters="\x7f", exclude_categories=("Cs",)))


def test_the_defaults_for_vggface_are_the_papers() -> None:
    assert (PAPER.lr, PAPER.classifier_lr_mult, PAPER.batch, PAPER.iterations) == (1e-4, 10.0, 32, 20_000)
    assert (PAPER.optimizer, PAPER.momentum, PAPER.weight_decay, PAPER.schedule) == ("sgd", 0.9, 5e-4, "constant")
    assert PAPER.label_smoothing == 0
    of_adapt = NETWORKS["vggface"].adapt
    paper = {**asdict(PAPER), "classifier_lr_mult": 1.0}  # all layers at 1e-4
    assert asdict(of_adapt) == paper | {"lambda_": 0.5, "normalise_features": False}
    adapt = resolve(AdaptConfig(source="a", target="b", layers=None), of_adapt)
    assert (adapt.lambda_, adapt.normalise_features, adapt.keep) == (0.5, False, 0)
    assert (adapt.kernels, adapt.layers) == (5, None)  # all layers that the model has
    assert NETWORKS["vggface"].layers == ("fc6", "fc7")


def test_a_recipe_fills_only_what_is_not_set() -> None:
    config = PretrainConfig(source="casia", lr=0.0, batch=3)
    resolved = resolve(config, PAPER)
    assert (resolved.lr, resolved.batch) == (0.0, 3)
    assert (resolved.iterations, resolved.optimizer) == (PAPER.iterations, PAPER.optimizer)
    unset = {key for key, value in options(resolved).items() if value is None}
    unset -= {
        "input",
        "mean",
        "std",
        "layers",
        "batch_norm",
        "input_normalisation",
        "train_from",
    }  # by the network, or of one that no row describes
    assert unset == {"init", "gallery", "margin", "scale", "holdout_identities"}  # softmax has neither margin nor scale
    assert config.iterations is None


def test_options_go_by_the_names_of_the_command_line() -> None:
    assert options(AdaptConfig(source="a", target="b", lambda_=0.25))["lambda"] == 0.25


def test_what_does_not_change_the_result_does_not_determine_a_run() -> None:
    config = resolve(AdaptConfig(source="a", target="b"), NETWORKS["vggface"].adapt)
    without = {"workers", "device", "cache", "compile", "grad_accum", "shard_classifier", "tensorboard", "strict"}
    without |= {"log_every", "checkpoint_every", "keep_every", "source", "target", "init"}
    without |= {"select", "lambdas", "candidates", "budget"}
    without |= {"backbone_lr_mult"}  # with 1 alone, as in earlier versions
    without |= {"input", "mean", "std", "channels"}  # --init's digest tells of them
    resolved = {"layers", "batch_norm", "method", "adabn_mix", "strict", "train_from"}  # elsewhere, or of other methods
    resolved |= {"whiten_power", "whiten_rank", "whiten_flip", "input_normalisation"}
    resolved |= {"augment", "restyle_share", "restyle_by", "mask_share", "normalise_features", "keep"}
    former = {new: old for old, new in former_names(config).items()}
    expected = {former.get(key, key) for key in options(config).keys() - without - resolved}
    assert hashed_options(config).keys() == expected
    assert hashed_options(replace(config, backbone_lr_mult=0.5)).keys() - expected == {"conv_lr"}


@given(
    st.dictionaries(
        st.from_regex(r"[a-z][a-z_]{0,9}", fullmatch=True),
        st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
        | TEXTS | st.lists(TEXTS, max_size=3).map(tuple),
        max_size=5,
    )
)  # fmt: skip
def test_a_section_written_is_the_section_read(values: dict[str, object]) -> None:
    read = tomllib.loads(as_toml("pretrain", values))
    expected = {key: list(v) if isinstance(v, tuple) else v for key, v in values.items() if v is not None}
    assert read == {"pretrain": expected}


def test_paths_are_written_as_text() -> None:
    assert as_toml("align", {"raw": Path("a/b")}) == '[align]\nraw = "a/b"\n'


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "sdg"}, "--optimizer does not know 'sdg'"),
        ({"schedule": "cosine"}, "--schedule does not know 'cosine'"),
        ({"batch": 1}, "--batch must be at least 2, not 1"),
        ({"iterations": 0}, "--iterations must be at least 1, not 0"),
        ({"checkpoint_every": 0}, "--checkpoint-every must be at least 1"),
        ({"log_every": -1}, "--log-every must be at least 1"),
        ({"lr": float("nan")}, "--lr must be a number from 0, not nan"),
        ({"lr": float("inf")}, "--lr must be a number from 0, not inf"),
        ({"weight_decay": -0.1}, "--weight-decay must be a number from 0"),
        ({"label_smoothing": 1.5}, "--label-smoothing must be a share from 0 to 1, not 1.5"),
    ],
)
def test_what_cannot_be_trained_is_refused_by_the_options_name(change: dict[str, Any], message: str) -> None:
    config = resolve(PretrainConfig(source="casia"), PAPER)
    check_training(config)
    with pytest.raises(UsageError, match=message):
        check_training(replace(config, **change))


def test_an_unknown_choice_is_answered_with_near_ones() -> None:
    with pytest.raises(UsageError, match="--model does not know 'vgface'") as caught:
        check_choice("--model", "vgface", ("vggface", "vggface-mini"))
    assert caught.value.fix == "did you mean vggface or vggface-mini?"


def test_a_head_has_its_papers_settings_where_none_are_given() -> None:
    config = PretrainConfig(source="a")
    softmax = resolve(config, PAPER)
    assert (softmax.head, softmax.margin) == ("softmax", None)
    arcface = resolve(replace(config, head="arcface", scale=30.0), PAPER)
    assert (arcface.margin, arcface.scale) == (0.5, 30.0)
    with pytest.raises(UsageError, match="--scale means nothing for --head sphereface"):
        resolve(replace(config, head="sphereface", scale=30.0), PAPER)
