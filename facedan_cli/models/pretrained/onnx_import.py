"""ONNX recognisers as networks that train: modules made by onnx2torch, believed when they compute what the graph does.

The module needs the graph again in every process, so that the checkpoint keeps it, without its weights, as text.
"""

from __future__ import annotations

import base64
import math
import re
import warnings
import zlib
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from facedan_cli.errors import FacedanError

TOLERANCE = 1e-4
"""The most by which an element of an embedding of length one may differ from onnxruntime's."""

_OPSETS = (None, 17, 14)
"""Versions of ONNX's operators that are tried: the file's own, and those that onnx2torch knows best."""

_BATCHES = (1, 3)
_GRAPH_LIMIT = 64_000_000
"""Most bytes of a graph without its weights."""

_MOST_WEIGHTS = 1_000_000_000
"""Most weights of a graph in a checkpoint, whose file may claim any number."""


@dataclass(frozen=True)
class OnnxNetwork:
    """A graph that was converted and computes what onnxruntime computes.

    Args:
        graph: without weights, as text; `graph_body` makes the module of it.
        tensors: the weights, by the module's names.
        difference: the largest difference of embeddings of length one that was seen.
        folded: whether batch normalisation is folded into convolutions, so that there are no statistics.
    """

    graph: str
    tensors: dict[str, Tensor]
    difference: float
    folded: bool


def read_onnx(path: Path, height: int, width: int) -> OnnxNetwork:
    """Convert an ONNX file.

    Args:
        path: a graph with one input, (batch, 3, height, width), that gives embeddings, (batch, length).
        height: of the input, pixels.
        width: likewise.

    Raises:
        FacedanError: packages are missing, the graph cannot be converted, or the module computes something else.
    """
    onnx, _ = _packages()
    try:
        model = onnx.load(path, load_external_data=False)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf and onnx raise errors of many types
        raise FacedanError(f"{path} cannot be read as ONNX: {_first_line(error)}", "export it again") from error
    if any(one.external_data for one in model.graph.initializer):
        raise FacedanError(f"{path} keeps its weights in other files", "save it as one file: onnx.save(…)")
    _rename(model)
    _free_batch(model)
    reasons = []
    for opset in _OPSETS:
        try:
            module = _converted(model, opset)
            difference = _difference(path, module, height, width)
        except Exception as error:  # onnx2torch and what it calls raise errors of many types
            reasons.append(f"opset {opset or 'of the file'}: {_first_line(error)}")
            continue
        if not difference <= TOLERANCE:
            reasons.append(f"its embeddings differ by {difference:.2g} from onnxruntime's")
            continue
        folded = not any(isinstance(one, nn.modules.batchnorm._BatchNorm) for one in module.modules())
        tensors = {name: value.detach().clone() for name, value in module.state_dict().items()}
        return OnnxNetwork(_as_text(model, opset), tensors, difference, folded)
    raise FacedanError(
        f"{path} cannot be converted to a network that trains: {'; '.join(dict.fromkeys(reasons))}",
        "evaluate it as it is (--model takes .onnx), or give the weights from which it was exported",
    )


def graph_body(text: str) -> nn.Module:
    """The module of a graph that `read_onnx` gave as text; its weights are zeros.

    Raises:
        FacedanError: packages are missing, or the text is damaged.
    """
    onnx, _ = _packages()
    try:
        opset, _, packed = text.partition(":")
        unpacker = zlib.decompressobj()
        model = onnx.ModelProto.FromString(unpacker.decompress(base64.b64decode(packed), _GRAPH_LIMIT))
        bare = [one for one in model.graph.initializer if _is_weight(one) and not one.HasField("raw_data")]
        if sum(math.prod(one.dims) for one in bare) > _MOST_WEIGHTS:
            raise ValueError("it has too many weights")
        for one in bare:
            one.raw_data = bytes(4 * math.prod(one.dims))
        _rename(model)
        with torch.device("cpu"):
            return _converted(model, int(opset) or None)
    except Exception as error:  # zlib, protobuf, onnx and onnx2torch raise errors of many types
        raise FacedanError(f"the graph of the network is damaged: {_first_line(error)}", "import it again") from error


def _packages() -> tuple[Any, Any]:
    try:
        import onnx
        import onnx2torch
    except ImportError as error:
        raise FacedanError("ONNX as weights needs onnx and onnx2torch", "pip install 'facedan[onnx]'") from error
    return onnx, onnx2torch


def _converted(model: Any, opset: int | None) -> nn.Module:
    onnx, onnx2torch = _packages()
    if opset is not None:
        model = onnx.version_converter.convert_version(model, opset)
    with warnings.catch_warnings(action="ignore"):
        module: nn.Module = onnx2torch.convert(_untied(model))
    for parameter in module.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return module.eval()


def _rename(model: Any) -> None:
    """Give nodes and values plain names, each node one of its own; such names stay as they are.

    onnx2torch makes a program of them, in which a name of a file could be code.
    """
    values, nodes = _PlainNames("value"), _PlainNames("node")
    graph = model.graph
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = values[value.name]
    for node in graph.node:
        node.name = nodes.new(node.name or node.op_type)
        inputs, outputs = list(node.input), list(node.output)
        del node.input[:], node.output[:]
        node.input.extend(name and values[name] for name in inputs)
        node.output.extend(name and values[name] for name in outputs)


class _PlainNames(dict[str, str]):
    """Names of letters, digits and underscores for any names, different for different ones.

    Args:
        kind: stands before what does not begin with a letter.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.taken: set[str] = set()

    def __missing__(self, name: str) -> str:
        self[name] = self.new(name)
        return self[name]

    def new(self, name: str) -> str:
        """A name like this one that was not given before."""
        word = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")[:60]
        word = word if word[:1].isalpha() else f"{self.kind}_{word}"
        plain = next(one for number in count() if (one := f"{word}_{number}" if number else word) not in self.taken)
        self.taken.add(plain)
        return plain


def _free_batch(model: Any) -> None:
    """Let a graph that was written for one image take a batch: also where it flattens to the shape (1, …)."""
    onnx, _ = _packages()
    for value in (*model.graph.input, *model.graph.output):
        shape = value.type.tensor_type.shape
        if shape.dim and value.name not in {one.name for one in model.graph.initializer}:
            shape.dim[0].dim_param = "batch"
    del model.graph.value_info[:]
    reshaping = [node for node in model.graph.node if node.op_type == "Reshape" and len(node.input) > 1]
    shapes = {node.input[1] for node in reshaping}
    for one in model.graph.initializer:
        if one.name in shapes and one.data_type == onnx.TensorProto.INT64:
            values = onnx.numpy_helper.to_array(one).copy()
            if (values != 0).all():  # then this means nothing, and onnx2torch does not know it
                for node in (node for node in reshaping if node.input[1] == one.name):
                    del node.attribute[:]
            if values.size > 1 and values[0] == 1:
                values[0] = 0  # as many as the input has
                one.CopyFrom(onnx.numpy_helper.from_array(values, one.name))


def _untied(model: Any) -> Any:
    """A copy in which each node has initialisers of its own: onnx2torch is wrong about shared ones."""
    copied = type(model)()
    copied.CopyFrom(model)
    by_name = {one.name: one for one in copied.graph.initializer}
    used: set[str] = set()
    number = count()
    for node in copied.graph.node:
        for place, name in enumerate(node.input):
            if name in by_name and name in used:
                own = copied.graph.initializer.add()
                own.CopyFrom(by_name[name])
                own.name = node.input[place] = f"{name}_copy_{next(number)}"
            elif name in by_name:
                used.add(name)
    return copied


@torch.no_grad()
def _difference(path: Path, module: nn.Module, height: int, width: int) -> float:
    """The largest difference between embeddings of length one by the module and by onnxruntime."""
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.log_severity_level = 4  # none: errors are raised
    session = InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    name, largest = session.get_inputs()[0].name, 0.0
    random = torch.Generator().manual_seed(0)
    for size in _BATCHES:
        coarse = torch.rand(size, 3, 8, 8, generator=random) * 2 - 1
        x = nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
        rows = [session.run(None, {name: one.numpy()})[0] for one in x.chunk(size)]
        expected = nn.functional.normalize(torch.from_numpy(np.concatenate(rows)).flatten(1))
        found = nn.functional.normalize(module(x).flatten(1))
        difference = float((found - expected).abs().max()) if found.shape == expected.shape else float("inf")
        largest = max(largest, float("inf") if math.isnan(difference) else difference)
    return largest


def _as_text(model: Any, opset: int | None) -> str:
    """A graph without its weights."""
    bare = type(model)()
    bare.CopyFrom(model)
    for one in bare.graph.initializer:
        if _is_weight(one):
            for field in ("raw_data", "float_data"):
                one.ClearField(field)
    return f"{opset or 0}:" + base64.b64encode(zlib.compress(bare.SerializeToString(), 9)).decode()


def _is_weight(tensor: Any) -> bool:
    onnx, _ = _packages()
    return bool(tensor.dims) and tensor.data_type == onnx.TensorProto.FLOAT


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
