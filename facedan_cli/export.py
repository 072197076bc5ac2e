"""A trained network as a file for other programs: aligned faces in, features out, its preprocessing inside."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from facedan_cli import __version__
from facedan_cli.config.common import EXPORT_FORMATS, EXPORT_SUFFIXES, ExportConfig
from facedan_cli.config.fields import check_choice
from facedan_cli.data.alignments import template_and_size
from facedan_cli.errors import FacedanError, UsageError
from facedan_cli.models.checkpoint import ModelCard, load_checkpoint
from facedan_cli.models.embedder import Embedder
from facedan_cli.models.network import FaceNetwork
from facedan_cli.models.networks import build
from facedan_cli.models.pretrained.state_dict import load_tensors
from facedan_cli.report import SILENT, Report
from facedan_cli.runs import read_record
from facedan_cli.workspace import find_manifest, replacing

INPUT, OUTPUT = "images", "features"
BATCHES = (1, 2, 5)
"""Batch sizes at which the exported file is compared with the network."""

TOLERANCE = 1e-5
"""The most by which an element of a vector of length one may differ: float32 sums in another order stay well below."""

METADATA_FILE, METADATA_KEY = "facedan.json", "facedan"
"""Where the metadata lies as JSON: in TorchScript a file (`_extra_files` of `torch.jit.load`), in safetensors a key."""

_OPSET = 18
"""The oldest that the exporter writes, for the oldest runtimes."""

_NEEDED = {"onnx": ("onnx", "onnxscript", "onnxruntime")}

Features = Callable[[Tensor], Tensor]
"""Images, shape (b, 3, image_size, image_size), to rows of length one, (b, d)."""


@dataclass(frozen=True)
class ExportResult:
    """A written export.

    Args:
        path: the file.
        format: "onnx", "torchscript" or "safetensors".
        difference: the largest difference between its features and the network's that was seen in the check.
        metadata: what the file says of itself.
    """

    path: Path
    format: str
    difference: float
    metadata: Mapping[str, str]


def choose_format(config: ExportConfig) -> str:
    """The format that is asked for, else the one that the file's suffix says.

    Raises:
        UsageError: neither says one.
        FacedanError: packages that it needs are not installed.
    """
    chosen = config.format
    if chosen is None:
        suffix = config.out.suffix.lower()
        if suffix not in EXPORT_SUFFIXES:
            raise UsageError(
                f"the suffix of {config.out.name} says no format",
                f"end it in {', '.join(EXPORT_SUFFIXES)}, or give --format",
            )
        chosen = EXPORT_SUFFIXES[suffix]
    check_choice("--format", chosen, EXPORT_FORMATS)
    missing = [package for package in _NEEDED.get(chosen, ()) if find_spec(package) is None]
    if missing:
        raise FacedanError(f"--format {chosen} needs {', '.join(missing)}", "pip install 'facedan[export]'")
    return chosen


def export(config: ExportConfig, checkpoint: Path, *, report: Report = SILENT) -> ExportResult:
    """Write a network without its classifier, and read it back: where its features differ, no file is left.

    Args:
        config: layer, flip, format and the file to write.
        checkpoint: the model.
        report: told of what the check found.

    Raises:
        FacedanError: the file is there already and not to be replaced, or what was written is not the network.
    """
    chosen = choose_format(config)
    if config.out.is_dir():
        raise UsageError(f"{config.out} is a directory", "name the file to write")
    if config.out.exists() and not config.force:
        raise FacedanError(f"{config.out} exists already", "--force replaces it; or name another file")
    trained, card = load_checkpoint(checkpoint)
    layer = config.layer or trained.layers[-1]
    check_choice("--layer", layer, trained.layers)
    embedder = Embedder(_body(card.model, trained.state_dict()), layer, flip=config.flip).eval()
    metadata = describe(embedder, card, checkpoint)
    write = {"onnx": _write_onnx, "torchscript": _write_torchscript, "safetensors": _write_safetensors}[chosen]
    with replacing(config.out) as temporary:
        written = write(embedder, temporary, metadata)
        difference = largest_difference(written, Embedder(trained, layer, flip=config.flip))
        if not difference <= TOLERANCE:
            raise FacedanError(
                f"the {chosen} file gives features that differ by {difference:.2g} from the network's; it was not kept",
                "try another --format, and report it with the versions of torch and onnxruntime",
            )
    report.note(f"checked on batches of {', '.join(map(str, BATCHES))}: features differ by {difference:.1e} at most")
    return ExportResult(config.out, chosen, difference, metadata)


@torch.no_grad()
def describe(embedder: Embedder, card: ModelCard, checkpoint: Path) -> dict[str, str]:
    """The metadata of a file: its network, and the images that it takes."""
    network = embedder.network
    mean, divisor = normalisation(network)
    size = network.image_size
    facts = {
        "facedan": __version__,
        "model": card.model,
        "layer": embedder.layer,
        "flip": str(embedder.flip).lower(),
        "length": str(embedder(_random_images(1, size)).shape[1]),
        "stage": card.stage,
        "run": card.run,
        "template": _template(checkpoint.absolute().parent.parent),
        "image_size": str(size),
        "crop": str(network.crop),
        "colours": "RGB, 0-255",
        "mean": " ".join(f"{value:.7g}" for value in mean),
        "divisor": f"{divisor:.7g}",
    }
    return {key: fact for key, fact in facts.items() if fact}


@torch.no_grad()
def normalisation(network: FaceNetwork) -> tuple[list[float], float]:
    """Mean and scale of R, G and B that the network applies, seen at its first convolution."""
    seen: list[Tensor] = []
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    hook = first.register_forward_pre_hook(lambda _, given: seen.append(given[0][0, :, 0, 0].double()))
    for value in (0.0, 255.0):
        network(torch.full((1, 3, network.crop, network.crop), value))
    hook.remove()
    black, white = seen
    divisor = 255 / float((white - black)[0])
    return (-black * divisor).tolist(), divisor


@torch.no_grad()
def largest_difference(written: Features, embedder: Embedder) -> float:
    """The largest difference between features of the same images; NaN where one of them is NaN."""
    differences = []
    for count in BATCHES:
        images = _random_images(count, embedder.network.image_size)
        differences.append((written(images) - embedder(images)).abs().max())
    return float(torch.stack(differences).max())


def _body(model: str, tensors: Mapping[str, Tensor]) -> FaceNetwork:
    """A network without its classifier, whose size grows with the source's identities.

    A classifier of one identity, all zeros, stands for it.
    """
    network = build(model, 1)
    for parameter in network.classifier.parameters():
        nn.init.zeros_(parameter)
    network.load_state_dict(_without_classifier(tensors), strict=False)
    return network.requires_grad_(False).eval()


def _without_classifier(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in tensors.items() if not key.startswith("classifier.")}


def _random_images(count: int, side: int) -> Tensor:
    """Random images with light and dark parts, as faces have; to a network all even noise looks the same."""
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(count))
    return F.interpolate(coarse, size=(side, side), mode="bilinear").mul(255).round()


def _template(run: Path) -> str:
    """The template of the faces that the run learnt from, where its data set still says so."""
    root = read_record(run).get("inputs", {}).get("source", {}).get("root")
    manifest = find_manifest(Path(root)) if root else None
    return template_and_size(manifest) if manifest else ""


def _write_onnx(embedder: Embedder, path: Path, metadata: Mapping[str, str]) -> Features:
    """An ONNX file with everything in it, and its features by onnxruntime."""
    import onnx
    from onnxruntime import InferenceSession, SessionOptions

    images = _random_images(2, embedder.network.image_size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            embedder,
            (images,),
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}},
            opset_version=_OPSET,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    # The exporter notes where in the source each part comes from, with the paths of this machine.
    graph = model.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer, *graph.value_info):
        part.ClearField("metadata_props")
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.save_model(model, path, format="protobuf")
    onnx.checker.check_model(path)
    options = SessionOptions()
    options.log_severity_level = 3  # errors alone
    session = InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])


class _Checked(nn.Module):
    """A traced network that refuses images of another size: a trace keeps no such condition.

    Args:
        network: as it was traced.
        size: side of the images, pixels.
    """

    def __init__(self, network: nn.Module, size: int) -> None:
        super().__init__()
        self.network = network
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        """`Embedder.forward` after a check of the size; TorchScript compiles this text."""
        if images.dim() != 4 or images.size(1) != 3 or images.size(2) != self.size or images.size(3) != self.size:
            raise ValueError("images of shape (batch, 3, " + str(self.size) + ", " + str(self.size) + ") are needed")
        if images.is_floating_point() and images.numel() > 0:
            most = float(images.max())
            if most > 0.0 and most <= 1.0:
                raise ValueError("images from 0 to 255 are needed, not from 0 to 1")
        features: Tensor = self.network(images)
        return features


def _write_torchscript(embedder: Embedder, path: Path, metadata: Mapping[str, str]) -> Features:
    """A TorchScript archive, and what it gives when it is loaded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch advises against TorchScript, which was asked for
        traced = torch.jit.trace(embedder, _random_images(2, embedder.network.image_size))  # type: ignore[no-untyped-call]
        checked = torch.jit.script(_Checked(traced, embedder.network.image_size))
        with path.open("wb") as file:  # given a path, torch would keep the temporary name inside
            torch.jit.save(checked, file, _extra_files={METADATA_FILE: json.dumps(metadata)})
        with path.open("rb") as file:
            loaded: Features = torch.jit.load(file)  # type: ignore[no-untyped-call]
    return loaded


def _write_safetensors(embedder: Embedder, path: Path, metadata: Mapping[str, str]) -> Features:
    """The weights by name, and what a new network with them gives."""
    tensors = _without_classifier(embedder.network.state_dict())
    tensors = {key: value.contiguous() for key, value in tensors.items()}
    save_file(tensors, path, metadata={METADATA_KEY: json.dumps(metadata)})
    return Embedder(_body(metadata["model"], load_tensors(path)), embedder.layer, flip=embedder.flip).eval()
