"""The model card of a network: a README in the form of the Hugging Face Hub."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from facedan_cli.export.measured import Measured
from facedan_cli.models.checkpoint import ModelCard
from facedan_cli.models.whitening import is_whitened

_LICENCES = {"MIT": "mit", "Apache-2.0": "apache-2.0", "CC BY-NC 4.0": "cc-by-nc-4.0", "CC0": "cc0-1.0"}
"""The Hub's names of licences, by how those of the table of networks begin."""

_TAGS = ("face-recognition", "face-verification", "domain-adaptation", "facedan")

_STAGES = {
    "weights": "The weights are as they were published.",
    "pretrain": "It was trained on labelled faces of the source (stage 1).",
    "adapt": "It was adapted from a labelled source to an unlabelled target (stage 2).",
}


def model_card(card: ModelCard, metadata: Mapping[str, str], data: Mapping[str, str], measured: Measured) -> str:
    """The text of README.md.

    Args:
        card: of the checkpoint.
        metadata: as `describe` gives them.
        data: names of the training's data sets, by what they were used for.
        measured: what evaluations found.
    """
    parts = [_header(card), f"# {card.run}", _what_it_is(card, metadata), _how_to_use(card, metadata)]
    parts += ["## Training", *_training(card, data), "## Measured", *_measured(measured)]
    return "\n\n".join(parts) + "\n"


def _header(card: ModelCard) -> str:
    stated = card.entry.licence if card.init else ""
    known = next((name for begin, name in _LICENCES.items() if stated.startswith(begin)), "")
    licence = [f"license: {known}"] if known else ["license: other", f"license_name: {_text(stated or 'not stated')}"]
    lines = [*licence, "library_name: facedan", "pipeline_tag: image-feature-extraction", "tags:"]
    return "\n".join(["---", *lines, *(f"- {tag}" for tag in _TAGS), "---"])


def _what_it_is(card: ModelCard, metadata: Mapping[str, str]) -> str:
    licence = card.entry.licence if card.init else ""
    said = f"The weights that it began from have this licence: {licence}." if licence else "No licence is stated."
    return (
        f"A face recognition network, {card.entry.family} (`{card.model}`), that gives {metadata['length']} features "
        f"by its layer `{metadata['layer']}`. {_STAGES.get(card.stage, '')} {said}"
    )


def _how_to_use(card: ModelCard, metadata: Mapping[str, str]) -> str:
    size, template = metadata["image_size"], metadata.get("template", "").partition(" ")[0]
    align = f" --template {template}" if template else ""
    options = f" --layer {metadata['layer']}" + (" --flip" if metadata["flip"] == "true" else "")
    first = f"{metadata['input_normalisation']}, then " if "input_normalisation" in metadata else ""
    return f"""## How to use

Faces are aligned and embedded, and compared by cosine:

    pip install facedan
    facedan align RAW ALIGNED --size {size}{align}
    facedan embed ALIGNED --model model.safetensors{options}

In Python, of aligned faces, RGB in 0-255:

```python
from pathlib import Path

import torch
from facedan_cli.models.checkpoint import load_checkpoint
from facedan_cli.models.embedder import Embedder

network, card = load_checkpoint(Path("model.safetensors"))
embedder = Embedder(network, {_text(metadata["layer"])}, flip={metadata["flip"] == "true"}).eval()
images = torch.randint(0, 256, (2, 3, {size}, {size}), dtype=torch.uint8)
with torch.no_grad():
    features = embedder(images)  # rows of length one
```

The preprocessing is inside: {first}(x − mean) / std, with mean {metadata["mean"]} and std {metadata["divisor"]}, in the
order R, G, B."""


def _training(card: ModelCard, data: Mapping[str, str]) -> Iterator[str]:
    if data:
        yield "\n".join(f"- {use}: {name}" for use, name in data.items())
    found = card.config
    if is_whitened(found):
        yield (
            f"Method: embeddings x become normalise((x − μ) · Σ^(−{found.get('whiten_power')})), with the mean μ "
            f"and the shrunk covariance Σ of the embeddings of {found.get('images')} unlabelled target images. "
            "No weight changes."
        )
    elif card.stage == "adapt":
        penalty = found.get("discrepancy", "mk-mmd")
        yield (
            f"Method: classification of the source plus λ = {found.get('lambda')} times {penalty} between source and "
            f"target, on the layers {found.get('layers')} (Luo et al., Deep unsupervised domain adaptation for face "
            "recognition, FG 2018)."
        )
    if card.init:
        facts = ", ".join(f"{key} {value}" for key, value in card.init.items())
        yield f"Published weights that it began from: {facts}."
    yield "\n".join(["| option | value |", "|---|---|", *(_row(key, _shown(card.config[key])) for key in card.config)])


def _measured(measured: Measured) -> Iterator[str]:
    if not measured.rates:
        yield "No evaluation of this model was found in its workspace."
        return
    rows = []
    for rate in measured.rates:
        note = f" [{rate.evaluation}]" if measured.warnings.get(rate.evaluation) else ""
        ends = "" if rate.interval is None else f"{100 * rate.interval[0]:.2f} to {100 * rate.interval[1]:.2f}"
        value = f"{100 * rate.value:.2f}{note}"
        rows.append(_row(rate.protocol, rate.features, rate.measure, value, ends, rate.trials))
    yield "Rates in per cent, measured by `facedan evaluate`."
    header = _row("protocol", "features", "measure", "value", "95 % interval", "trials")
    yield "\n".join([header, "|---|---|---|---|---|---|", *rows])
    for number, warnings in measured.warnings.items():
        for warning in warnings:
            yield f"[{number}] {_cell(warning)}"


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _text(value: str) -> str:
    """A string of YAML or Python."""
    return json.dumps(value, ensure_ascii=False)


def _row(*cells: str) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
