"""ONNX and TorchScript: the network and its preprocessing in one file, which refuses other images where it can."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from facedan_cli.export.metadata import example_images
from facedan_cli.export.raw import RawEmbedder, within
from facedan_cli.models.embedder import Embedder

INPUT, OUTPUT = "images", "features"

RAW_INPUT, RAW_OUTPUT = "input.1", "embedding"
"""With preprocessing outside; the input is called as in InsightFace's packs."""

METADATA_FILE = "facedan.json"
"""Where the metadata lies as JSON in TorchScript (`_extra_files` of `torch.jit.load`)."""

_OPSET = 18
"""The oldest that the exporter writes, for the oldest runtimes."""

Features = Callable[[Tensor], Tensor]
"""Images, shape (b, 3, height, width), to features, (b, d)."""


def write_onnx(embedder: Embedder, path: Path, metadata: Mapping[str, str]) -> Features:
    """An ONNX file with everything in it, and its features by onnxruntime."""
    import onnx
    from onnxruntime import InferenceSession, SessionOptions

    raw = isinstance(embedder, RawEmbedder)
    given, made = (RAW_INPUT, RAW_OUTPUT) if raw else (INPUT, OUTPUT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            (embedder if raw else _NaNOfZeroToOne(embedder)).eval(),
            (example_images(embedder, 2),),
            dynamo=True,
            input_names=[given],
            output_names=[made],
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
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
    return lambda images: torch.from_numpy(session.run([made], {given: images.numpy()})[0])


def write_torchscript(embedder: Embedder, path: Path, metadata: Mapping[str, str]) -> Features:
    """A TorchScript archive, and what it gives when it is loaded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch advises against TorchScript, which was asked for
        traced = torch.jit.trace(embedder, example_images(embedder, 2))  # type: ignore[no-untyped-call]
        checked = torch.jit.script(_Checked(traced, embedder))
        with path.open("wb") as file:  # given a path, torch would keep the temporary name inside
            torch.jit.save(checked, file, _extra_files={METADATA_FILE: json.dumps(metadata)})
        with path.open("rb") as file:
            loaded: Features = torch.jit.load(file)  # type: ignore[no-untyped-call]
    return loaded


class _NaNOfZeroToOne(nn.Module):
    """An embedder that gives NaN for images from 0 to 1: an ONNX graph can raise no error for what images hold.

    Args:
        embedder: takes images in 0-255.
    """

    def __init__(self, embedder: nn.Module) -> None:
        super().__init__()
        self.embedder = embedder

    def forward(self, images: Tensor) -> Tensor:
        """Features (b, d) as of the embedder."""
        brightest = images.amax((1, 2, 3))
        wrong = (brightest > 0) & (brightest <= 1)
        return torch.where(wrong[:, None], torch.nan, self.embedder(images))


class _Checked(nn.Module):
    """A traced network that refuses other images: a trace keeps no such condition.

    Args:
        network: as it was traced.
        embedder: that it was traced from.
    """

    def __init__(self, network: nn.Module, embedder: Embedder) -> None:
        super().__init__()
        self.network = network
        self.height, self.width = embedder.sides
        self.raw = isinstance(embedder, RawEmbedder)
        self.least, self.most = embedder.limits if isinstance(embedder, RawEmbedder) else (0.0, 255.0)

    def forward(self, images: Tensor) -> Tensor:
        """`forward` of the embedder after its checks; TorchScript compiles this text."""
        if images.dim() != 4 or images.size(1) != 3 or images.size(2) != self.height or images.size(3) != self.width:
            needed = "images of shape (batch, 3, " + str(self.height) + ", " + str(self.width) + ") are needed, not "
            raise ValueError(needed + str(images.shape))
        if not images.is_floating_point() and (self.raw or images.dtype != torch.uint8):
            raise ValueError("images must be floating-point" + ("" if self.raw else " or uint8"))
        if images.is_floating_point() and images.numel() > 0:
            if self.raw:
                if not within(images, self.least, self.most):
                    limits = str(self.least) + " to " + str(self.most)
                    raise ValueError("normalised images, from " + limits + ", are needed")
            elif float(images.max()) > 0.0 and float(images.max()) <= 1.0:
                raise ValueError("images from 0 to 255 are needed, not from 0 to 1")
        features: Tensor = self.network(images)
        return features
