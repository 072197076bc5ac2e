"""ONNX graphs as networks that train, held against onnxruntime and against damage."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from facedan_cli.errors import FacedanError
from facedan_cli.models.pretrained.onnx_import import graph_body, read_onnx

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnx2torch", reason="onnx2torch is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

EVIL = 'conv"); open("ran", "w"); ("'


def graph(path: Path, *, batch: int | str = 1, shared: bool = False, folded: bool = False, operator: str = "") -> Path:
    """A small recogniser for images of 16×16 as exporters write it: flattened to (1, …) by a reshape."""
    random = np.random.default_rng(0)
    helper, tensor = onnx.helper, onnx.numpy_helper.from_array
    weights = {
        "w": random.normal(size=(4, 3, 3, 3)),
        "w2": random.normal(size=(4, 4, 3, 3)) / 4,
        "slope": np.full((4, 1, 1), 0.25),
        "slope2": np.full((4, 1, 1), 0.1),
        **{name: random.uniform(0.5, 1.5, 4) for name in ("scale", "bias", "mean", "var")},
        "fc": random.normal(size=(8, 4 * 8 * 8)) / 16,
        "c": np.zeros(8),
    }
    slope2 = "slope" if shared else "slope2"
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a 0"], name=EVIL, pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("PRelu", ["a 0", "slope"], ["b"], name=EVIL + "2"),
        *([] if folded else [helper.make_node("BatchNormalization", ["b", "scale", "bias", "mean", "var"], ["n"])]),
        helper.make_node("Conv", ["b" if folded else "n", "w2"], ["d"], name="second", pads=[1, 1, 1, 1]),
        helper.make_node("PRelu", ["d", slope2], ["e"], name="3"),
        *([helper.make_node(operator, ["e"], ["e2"])] if operator else []),
        helper.make_node("Reshape", ["e2" if operator else "e", "shape"], ["f"]),
        helper.make_node("Gemm", ["f", "fc", "c"], ["out"], transB=1),
    ]
    stored = [tensor(value.astype(np.float32), name) for name, value in weights.items()]
    stored.append(tensor(np.array([1 if batch == 1 else 0, -1]), "shape"))
    kind = onnx.TensorProto.FLOAT
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, [batch, 3, 16, 16])],
        [helper.make_tensor_value_info("out", kind, [batch, 8])],
        stored,
    )
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


@pytest.mark.parametrize("batch", [1, "n"])
@pytest.mark.parametrize("shared", [False, True])
def test_a_graph_becomes_a_module_that_computes_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int | str, shared: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    found = read_onnx(graph(tmp_path / "net.onnx", batch=batch, shared=shared), 16, 16)
    assert found.difference < 1e-5
    assert not found.folded
    body = graph_body(found.graph)
    assert not any(x.any() for name, x in body.state_dict().items() if name.endswith("weight") and x.dim() == 4)
    body.load_state_dict(found.tensors)
    x = torch.randn(5, 3, 16, 16)
    from onnxruntime import InferenceSession

    session = InferenceSession(str(tmp_path / "net.onnx"))
    expected = np.concatenate([session.run(None, {"x": one.numpy()})[0] for one in x.split(1)])
    assert torch.allclose(body(x), torch.from_numpy(expected), atol=1e-5)
    body.train()(x).square().sum().backward()
    trained = {type(module) for module in body.modules() if any(p.grad is not None for p in module.parameters(False))}
    assert {nn.Conv2d, nn.BatchNorm2d, nn.Linear} <= trained
    assert not (tmp_path / "ran").exists()
    assert all(re.fullmatch(r"\w+(\.\w+)*", name) for name in found.tensors)


def test_folded_batch_normalisation_is_seen(tmp_path: Path) -> None:
    assert read_onnx(graph(tmp_path / "net.onnx", folded=True), 16, 16).folded


def test_what_cannot_be_converted_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(FacedanError, match="Hardmax"):
        read_onnx(graph(tmp_path / "net.onnx", operator="Hardmax"), 16, 16)
    with pytest.raises(FacedanError, match="cannot be converted"):
        read_onnx(graph(tmp_path / "net.onnx"), 20, 20)


def test_a_module_that_computes_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnx2torch

    convert = onnx2torch.convert

    def wrong(model: object) -> nn.Module:
        return nn.Sequential(convert(model), nn.Softmax(1))

    monkeypatch.setattr(onnx2torch, "convert", wrong)
    with pytest.raises(FacedanError, match="differ by"):
        read_onnx(graph(tmp_path / "net.onnx"), 16, 16)


def test_damaged_files_and_graphs_are_refused(tmp_path: Path) -> None:
    path = graph(tmp_path / "net.onnx")
    text = read_onnx(path, 16, 16).graph
    content = path.read_bytes()
    for damaged in (content[:-100], b"", b"\x00" * 50, content[100:]):
        path.write_bytes(damaged)
        with pytest.raises(FacedanError):
            read_onnx(path, 16, 16)
    for damaged in ("", "x:y", text[:-20], text.replace(":", ":AA", 1)):
        with pytest.raises(FacedanError, match="damaged"):
            graph_body(damaged)
