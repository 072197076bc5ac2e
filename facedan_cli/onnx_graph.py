"""Recognisers of anybody as ONNX graphs: what they expect of images, and their features by onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from facedan_cli.config.preprocessing import Channels, parse_normalisation, parse_size
from facedan_cli.errors import FacedanError, UsageError

SIDES, MOST = range(16, 1025), 1024
"""Sides of the images, pixels, and numbers of images that a graph may fix."""

SIDE = 112
"""Height and width of the images of a graph that does not say them, pixels."""

_FIX = "give the graph of a recogniser: one batch of RGB images in, one row of features an image out"
_TYPES: Mapping[int, Any] = {1: np.float32, 2: np.uint8, 10: np.float16, 11: np.float64}
"""NumPy's types of the element types that images may have (`onnx.TensorProto`)."""


@dataclass(frozen=True)
class Graph:
    """What a graph says of itself.

    Args:
        path: its file.
        input: name of its input.
        type: type of the images' elements.
        channels_last: whether images are (b, height, width, 3), else (b, 3, height, width).
        batch: images that it takes at a time; None: any number.
        size: height and width of the images; None where it says none.
        outputs: names of the outputs that may be features.
        unit: 1 where it takes images in 0-255 and normalises them itself, 255 where likewise in 0-1; 0: it does not.
        metadata: its properties.
        external: files beside it that hold its weights.
    """

    path: Path
    input: str
    type: Any
    channels_last: bool
    batch: int | None
    size: tuple[int, int] | None
    outputs: tuple[str, ...]
    unit: int
    metadata: Mapping[str, str]
    external: tuple[Path, ...]


@dataclass(frozen=True)
class Preprocessing:
    """What becomes of an aligned face before a graph sees it.

    Args:
        size: height and width, pixels.
        mean: subtracted from the channels in 0-255, in the order in which the graph takes them.
        std: what is then divided by.
        channels: "rgb" or "bgr".
    """

    size: tuple[int, int]
    mean: Channels
    std: Channels
    channels: str

    def facts(self) -> dict[str, Any]:
        """The same as JSON has it."""
        lists = {"size": list(self.size), "mean": list(self.mean), "std": list(self.std)}
        return lists | {"channels": self.channels}

    def as_settings(self) -> dict[str, str]:
        """The same as options have it, in units of 0-1."""
        mean, std = (",".join(repr(value / 255) for value in one) for one in (self.mean, self.std))
        size = "x".join(map(str, self.size))
        return {"input": size, "mean": mean, "std": std, "channels": self.channels}

    def __str__(self) -> str:
        means, stds = (", ".join(f"{value:g}" for value in dict.fromkeys(one)) for one in (self.mean, self.std))
        return f"{self.size[0]}x{self.size[1]}, {self.channels.upper()}, mean {means}, deviation {stds}"


def is_onnx(path: Path) -> bool:
    """Whether a file is meant to be an ONNX graph: by its suffix, for the format has no mark."""
    return path.suffix.lower() == ".onnx" and path.is_file()


def read_graph(path: Path) -> Graph:
    """Read what a graph says of itself.

    Raises:
        FacedanError: it is no ONNX file, no recogniser, or names files outside its directory.
    """
    onnx = _library("onnx", path)
    try:
        model = onnx.load(path, load_external_data=False)
        external = _external(onnx, model, path)
        onnx.checker.check_model(str(path))
        graph = model.graph
        stored = {one.name for one in graph.initializer}
        inputs = [one for one in graph.input if one.name not in stored]
        dimensions, kind = _shape(inputs[0]) if len(inputs) == 1 else (None, 0)
        outputs = tuple(one.name for one in graph.output if _may_be_features(_shape(one)[0]))
        unit = _unit(onnx, graph, inputs[0].name) if len(inputs) == 1 else 0
        metadata = {one.key: one.value for one in model.metadata_props}
    except FacedanError:
        raise
    except Exception as error:  # a damaged file may fail in any part of the parser
        raise FacedanError(f"{path} is no ONNX graph that can be read: {error}", _FIX) from error
    if dimensions is None or len(dimensions) != 4 or kind not in _TYPES:
        raise FacedanError(f"{path} takes no single batch of images, (b, 3, height, width)", _FIX)
    channels_last = dimensions[3] == 3 and dimensions[1] != 3
    if not channels_last and dimensions[1] not in (3, None):
        raise FacedanError(f"{path} takes images of {dimensions[1]} channels, not of three", _FIX)
    if not outputs:
        raise FacedanError(f"no output of {path} has a row an image", _FIX)
    height, width = dimensions[1:3] if channels_last else dimensions[2:]
    size = (height, width) if height and width else None
    if not all(side is None or side in SIDES for side in (height, width)) or (dimensions[0] or 1) > MOST:
        raise FacedanError(f"{path} takes {dimensions} numbers, no usual batch of images", _FIX)
    return Graph(
        path, inputs[0].name, _TYPES[kind], channels_last, dimensions[0], size, outputs, unit, metadata, external
    )


def preprocessing_of(graph: Graph, settings: Mapping[str, str] | None = None) -> Preprocessing:
    """What a graph expects: as the user says, else as its metadata or first nodes say, else as InsightFace's graphs do.

    Args:
        graph: the graph.
        settings: `input`, `mean`, `std` and `channels` as the options have them.

    Raises:
        UsageError: the settings contradict the graph.
        FacedanError: an export's metadata are damaged.
    """
    settings = {key: value for key, value in (settings or {}).items() if value is not None}
    given = parse_size(settings["input"]) if "input" in settings else None
    size = graph.size or given or (SIDE, SIDE)
    if given not in (None, size):
        raise UsageError(f"--input is {settings['input']}, and {graph.path} takes {size[0]}x{size[1]}", "leave it out")
    if "facedan" in graph.metadata:
        if settings:
            raise UsageError(f"--{next(iter(settings))} means nothing for {graph.path}, an export", "leave it out")
        return Preprocessing(size, *_of_export(graph), "rgb")
    mean, std = (0.0,) * 3, (float(graph.unit),) * 3
    if "mean" in settings or "std" in settings or not graph.unit:
        mean, std = parse_normalisation(settings.get("mean"), settings.get("std"))
    return Preprocessing(size, mean, std, settings.get("channels", "rgb"))


def _of_export(graph: Graph) -> tuple[Channels, Channels]:
    """Mean and deviation that an export of facedan expects: those of its metadata where it was made with --raw."""
    if graph.metadata.get("preprocessing") != "outside":
        return (0.0,) * 3, (1.0,) * 3
    try:
        red, green, blue = map(float, graph.metadata["mean"].split())
        stds = [float(value) for value in graph.metadata["divisor"].split()]
        if not stds or not all(value > 0 for value in stds):
            raise ValueError("no divisor")
    except (KeyError, ValueError) as error:
        raise FacedanError(f"the metadata of {graph.path} are damaged: {error}", "export it again") from error
    return (red, green, blue), (stds[0], stds[len(stds) // 2], stds[-1])


def output_of(graph: Graph, asked: str | None) -> str:
    """The output of the features.

    Args:
        graph: the graph.
        asked: its name; None where the graph has one only.

    Raises:
        UsageError: there is no such output, or there are several.
    """
    if asked is None and len(graph.outputs) == 1:
        return graph.outputs[0]
    if asked not in graph.outputs:
        what = f"--layer does not know '{asked}'" if asked else f"{graph.path} has {len(graph.outputs)} outputs"
        raise UsageError(what, f"--layer names one of {', '.join(graph.outputs)}")
    return asked


class Recogniser:
    """A graph ready to compute features.

    Args:
        graph: the graph.
        how: what becomes of the images.
        output: name of the output of the features.
        device: CPU, or a GPU where onnxruntime has it.

    Raises:
        FacedanError: onnxruntime does not load the graph.
    """

    def __init__(self, graph: Graph, how: Preprocessing, output: str, device: torch.device) -> None:
        runtime = _library("onnxruntime", graph.path)
        options = runtime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = torch.get_num_threads()
        wanted = ["CUDAExecutionProvider"] if device.type == "cuda" else []
        providers = [one for one in (*wanted, "CPUExecutionProvider") if one in runtime.get_available_providers()]
        self.graph, self.how, self.output = graph, how, output
        try:
            self._session = runtime.InferenceSession(str(graph.path), options, providers=providers)
        except Exception as error:  # onnxruntime raises a class a fault
            raise FacedanError(f"onnxruntime does not load {graph.path}: {error}", _FIX) from error
        self._batch = graph.batch or (None if self._any_number() else 1)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Features, float32, (n, d), of RGB images, uint8, (n, height, width, 3).

        Raises:
            FacedanError: the graph fails, gives no row an image, or numbers that are not finite.
        """
        x = self._prepared(images)
        batch = self._batch or len(x)
        rows = []
        for start in range(0, len(x), batch):
            part = x[start : start + batch]
            filled = part if len(part) == batch else np.concatenate([part, np.repeat(part[-1:], batch - len(part), 0)])
            rows.append(self._run(filled)[: len(part)])
        features = np.concatenate(rows)
        if not np.isfinite(features).all():
            raise FacedanError(f"{self.graph.path} gives features that are no finite numbers", "look at --mean, --std")
        return features

    def _any_number(self) -> bool:
        """Whether two images at once have the features that they have one by one: some graphs fix the number inside."""
        rng = np.random.default_rng(0)
        x = self._prepared(rng.integers(0, 256, (2, *self.how.size, 3), np.uint8))
        alone = np.concatenate([self._run(x[:1]), self._run(x[1:])])
        try:
            together = self._run(x)
        except FacedanError:
            return False
        if not np.isfinite(alone).all():
            return False
        near = 1e-3 * float(np.abs(alone).max())
        return together.shape == alone.shape and np.allclose(together, alone, rtol=0, atol=near)

    def _prepared(self, images: np.ndarray) -> np.ndarray:
        x = images[..., ::-1] if self.how.channels == "bgr" else images
        if self.how.mean != (0.0,) * 3 or self.how.std != (1.0,) * 3:
            x = (x - np.array(self.how.mean, np.float32)) / np.array(self.how.std, np.float32)
        x = x if self.graph.channels_last else x.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(x, self.graph.type)

    def _run(self, x: np.ndarray) -> np.ndarray:
        try:
            (found,) = self._session.run([self.output], {self.graph.input: x})
        except Exception as error:  # onnxruntime raises a class a fault
            size = "x".join(map(str, self.how.size))
            raise FacedanError(f"{self.graph.path} fails on images of {size}: {error}", "look at --input") from error
        rows = np.asarray(found)
        if rows.ndim < 2 or len(rows) != len(x) or not rows[0].size or rows.shape[1] != rows[0].size:
            raise FacedanError(f"{self.graph.path} gives {rows.shape} for {len(x)} images, no row an image", _FIX)
        return rows.reshape(len(x), -1).astype(np.float32)


def _library(name: str, path: Path) -> Any:
    try:
        return __import__(name)
    except ImportError as error:
        raise FacedanError(f"{path} needs {name}, which is missing", "pip install 'facedan[onnx]'") from error


def _external(onnx: Any, model: Any, path: Path) -> tuple[Path, ...]:
    """The files that hold the graph's weights: none may lie outside its directory."""
    directory = path.resolve().parent
    found = []
    for tensor in onnx.external_data_helper._get_all_tensors(model):
        if onnx.external_data_helper.uses_external_data(tensor):
            location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
            file = (directory / location).resolve()
            if not location or not file.is_relative_to(directory) or not file.is_file():
                raise FacedanError(f"{path} keeps weights in '{location}', no file beside it", "copy all of its files")
            found.append(file)
    return tuple(sorted(set(found)))


def _shape(value: Any) -> tuple[list[int | None] | None, int]:
    """Dimensions of an input or output, None where they are open or where it says none; and its element type."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None, tensor.elem_type
    return [one.dim_value if one.dim_value > 0 else None for one in tensor.shape.dim], tensor.elem_type


def _may_be_features(dimensions: Sequence[int | None] | None) -> bool:
    """Whether an output may have a row an image: (b, d), also as (b, d, 1, 1), but not a number an image."""
    if dimensions is None:
        return True
    return len(dimensions) >= 2 and dimensions[1] != 1 and all(one in (1, None) for one in dimensions[2:])


def _unit(onnx: Any, graph: Any, name: str) -> int:
    """How images run where a graph normalises them: as `Graph` has it.

    InsightFace's rule: graphs that begin by a subtraction and a multiplication take 0-255. Where the mean that they
    subtract is one at most, they take 0-1.
    """
    constants = {one.name: one for one in graph.initializer}
    constants |= {
        node.output[0]: node.attribute[0].t
        for node in graph.node
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value"
    }
    gain, shift, seen = 1.0, 0.0, set[str]()
    for _ in range(8):
        users = [node for node in graph.node if name in node.input]
        if len(users) != 1 or users[0].op_type not in ("Sub", "Add", "Mul", "Div", "Cast", "Identity", "Transpose"):
            break
        node, name = users[0], users[0].output[0]
        if node.op_type in ("Cast", "Identity", "Transpose"):
            continue
        other = [one for one in node.input if one in constants]
        if len(other) != 1:
            break
        value = float(np.mean(onnx.numpy_helper.to_array(constants[other[0]])))
        kind = "offset" if node.op_type in ("Sub", "Add") else "scale"
        seen.add(kind)
        if kind == "offset":
            shift += value if node.op_type == "Add" else -value
        elif value:
            factor = value if node.op_type == "Mul" else 1 / value
            gain, shift = gain * factor, shift * factor
    if seen != {"offset", "scale"}:
        return 0
    return 1 if abs(shift / gain) > 1 else 255
