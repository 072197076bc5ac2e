"""ONNX graphs of anybody: what they expect, and their features, against NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from facedan_cli.errors import FacedanError, UsageError
from facedan_cli.onnx_graph import Preprocessing, Recogniser, output_of, preprocessing_of, read_graph

SIDE, LENGTH = 16, 5
WEIGHTS = np.random.default_rng(0).normal(size=(3 * SIDE * SIDE, LENGTH)).astype(np.float32) / 50
INSIDE = ((127.5,) * 3, (127.5,) * 3)
RGB = Preprocessing((SIDE, SIDE), (127.5,) * 3, (127.5,) * 3, "rgb")


def write(
    path: Path,
    *,
    before: tuple[tuple[str, Any], ...] = (),
    batch: int | str = "b",
    size: tuple[int | str, int | str] = (SIDE, SIDE),
    channels_last: bool = False,
    rows: int = 0,
    outputs: int = 1,
    kind: int = TensorProto.FLOAT,
    weights: np.ndarray = WEIGHTS,
    metadata: dict[str, str] | None = None,
) -> Path:
    """A graph: elementwise steps, then rows of `Reshape(rows)` times weights."""
    nodes, constants, name = [], [], "x"
    for number, (step, value) in enumerate(before):
        constants.append(numpy_helper.from_array(np.array(value, np.float32), f"c{number}"))
        nodes.append(helper.make_node(step, [name, f"c{number}"], [f"s{number}"]))
        name = f"s{number}"
    if kind != TensorProto.FLOAT:
        nodes.append(helper.make_node("Cast", [name], ["float"], to=TensorProto.FLOAT))
        name = "float"
    constants.append(numpy_helper.from_array(np.array([rows, -1] if rows else [0, -1]), "shape"))
    constants.append(numpy_helper.from_array(weights, "w"))
    nodes.append(helper.make_node("Reshape", [name, "shape"], ["flat"]))
    nodes += [helper.make_node("MatMul", ["flat", "w"], [f"y{number}"]) for number in range(outputs)]
    shape = [batch, *size, 3] if channels_last else [batch, 3, *size]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(f"y{number}", TensorProto.FLOAT, [batch, LENGTH]) for number in range(outputs)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    if metadata:
        helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path


def images(count: int = 3, height: int = SIDE, width: int = SIDE) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, height, width, 3), np.uint8)


def expected(faces: np.ndarray, mean: Any, std: Any, *, bgr: bool = False, channels_last: bool = False) -> np.ndarray:
    """In float64."""
    x = (faces[..., ::-1] if bgr else faces).astype(np.float64)
    x = (x - np.array(mean)) / np.array(std)
    x = x if channels_last else x.transpose(0, 3, 1, 2)
    return x.reshape(len(faces), -1) @ WEIGHTS.astype(np.float64)


def run(path: Path, faces: np.ndarray, settings: dict[str, str] | None = None) -> np.ndarray:
    graph = read_graph(path)
    how = preprocessing_of(graph, settings)
    return Recogniser(graph, how, output_of(graph, None), torch.device("cpu"))(faces)


GRAPHS: dict[str, dict[str, Any]] = {
    "any batch": {},
    "one at a time": {"batch": 1},
    "four at a time": {"batch": 4},
    "one at a time inside": {"rows": 1},
    "open size": {"size": ("h", "w")},
    "channels last": {"channels_last": True},
    "bytes": {"kind": TensorProto.UINT8},
    "halves": {"kind": TensorProto.FLOAT16},
    "doubles": {"kind": TensorProto.DOUBLE},
}


@pytest.mark.parametrize("form", GRAPHS)
@pytest.mark.parametrize("count", [1, 3, 5])
def test_features_are_those_of_the_formula(tmp_path: Path, form: str, count: int) -> None:
    path = write(tmp_path / "m.onnx", **GRAPHS[form])
    faces = images(count)
    settings = {"input": "16x16"} if form == "open size" else {}
    if form == "bytes":
        settings = {"mean": "0", "std": "255"}
        faces = faces // 255 * 255  # its elements are whole numbers
    mean, std = ((0,) * 3, (255,) * 3) if form == "bytes" else INSIDE
    wanted = expected(faces, mean, std, channels_last=form == "channels last")
    np.testing.assert_allclose(run(path, faces, settings), wanted, atol=5e-3 if form == "halves" else 1e-5)


@pytest.mark.parametrize(
    ("before", "mean", "std"),
    [
        ((), *INSIDE),
        ((("Sub", 127.5), ("Mul", 0.0078125)), (0,) * 3, (1,) * 3),
        ((("Sub", 127.5), ("Div", 128)), (0,) * 3, (1,) * 3),
        ((("Mul", 1 / 127.5), ("Add", -1)), (0,) * 3, (1,) * 3),
        ((("Div", 255), ("Sub", 0.5), ("Div", 0.5)), (0,) * 3, (1,) * 3),
        (
            (("Sub", [[[0.485]], [[0.456]], [[0.406]]]), ("Div", [[[0.229]], [[0.224]], [[0.225]]])),
            (0,) * 3,
            (255,) * 3,
        ),
        ((("Mul", 2), ("Sub", 1)), (0,) * 3, (255,) * 3),
        ((("Mul", 2),), *INSIDE),
    ],
)
def test_the_first_nodes_tell_how_images_run(tmp_path: Path, before: Any, mean: Any, std: Any) -> None:
    how = preprocessing_of(read_graph(write(tmp_path / "m.onnx", before=before)))
    assert (how.mean, how.std, how.channels, how.size) == (mean, std, "rgb", (SIDE, SIDE))


def test_options_come_first(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", before=(("Sub", 127.5), ("Mul", 1 / 128)))
    settings = {"mean": "0.2,0.4,0.6", "std": "0.5", "channels": "bgr"}
    how = preprocessing_of(read_graph(path), settings)
    assert how == Preprocessing((SIDE, SIDE), pytest.approx((51.0, 102.0, 153.0)), (127.5,) * 3, "bgr")
    path = write(tmp_path / "m.onnx")
    found = run(path, images(), settings)
    np.testing.assert_allclose(found, expected(images(), (51, 102, 153), (127.5,) * 3, bgr=True), atol=1e-5)


def test_an_export_says_itself_what_it_takes(tmp_path: Path) -> None:
    graph = read_graph(write(tmp_path / "m.onnx", metadata={"facedan": "1", "image_size": "16"}))
    assert preprocessing_of(graph) == Preprocessing((SIDE, SIDE), (0.0,) * 3, (1.0,) * 3, "rgb")
    with pytest.raises(UsageError, match="--std means nothing"):
        preprocessing_of(graph, {"std": "1"})


def test_an_export_with_its_preprocessing_outside_is_given_what_it_says(tmp_path: Path) -> None:
    said = {"facedan": "1", "preprocessing": "outside", "mean": "123.5 116 103", "divisor": "58 57 56.5"}
    found = preprocessing_of(read_graph(write(tmp_path / "m.onnx", metadata=said)))
    assert found == Preprocessing((SIDE, SIDE), (123.5, 116.0, 103.0), (58.0, 57.0, 56.5), "rgb")
    one = preprocessing_of(read_graph(write(tmp_path / "m.onnx", metadata={**said, "divisor": "127.5"})))
    assert one.std == (127.5,) * 3
    for damaged in ({"mean": "1 2"}, {"divisor": ""}, {"divisor": "0"}, {"mean": "x y z"}):
        with pytest.raises(FacedanError, match=r"metadata of .* are damaged"):
            preprocessing_of(read_graph(write(tmp_path / "m.onnx", metadata=said | damaged)))


def test_a_size_that_is_fixed_is_not_chosen(tmp_path: Path) -> None:
    graph = read_graph(write(tmp_path / "m.onnx"))
    with pytest.raises(UsageError, match="takes 16x16"):
        preprocessing_of(graph, {"input": "20"})


def test_of_several_outputs_one_is_named(tmp_path: Path) -> None:
    graph = read_graph(write(tmp_path / "m.onnx", outputs=2))
    assert output_of(graph, "y1") == "y1"
    for asked in (None, "y2"):
        with pytest.raises(UsageError, match=r"outputs|does not know") as caught:
            output_of(graph, asked)
        assert "y0, y1" in str(caught.value.fix)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_no_numbers_are_an_error(tmp_path: Path, value: float) -> None:
    with pytest.raises(FacedanError, match="finite"):
        run(write(tmp_path / "m.onnx", weights=np.full_like(WEIGHTS, value)), images())


def two_inputs(model: Any) -> None:
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1]))


def grey(model: Any) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1


def three_dimensions(model: Any) -> None:
    del model.graph.input[0].type.tensor_type.shape.dim[3]


def one_number_an_image(model: Any) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 1


def huge(model: Any) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 1 << 40


def many(model: Any) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1 << 40


def of_texts(model: Any) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING


def unknown_node(model: Any) -> None:
    model.graph.node[0].op_type = "Nothing"


def outside(model: Any) -> None:
    tensor = model.graph.initializer[1]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../../../../etc/passwd")


@pytest.mark.parametrize(
    "change", [two_inputs, grey, three_dimensions, one_number_an_image, huge, many, of_texts, unknown_node, outside]
)
def test_other_graphs_are_refused(tmp_path: Path, change: Any) -> None:
    model = onnx.load(write(tmp_path / "m.onnx"))
    change(model)
    (tmp_path / "n.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(FacedanError, match=r"n\.onnx"):
        run(tmp_path / "n.onnx", images())


def test_images_of_a_size_that_the_graph_does_not_take_are_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", size=("h", "w"))
    with pytest.raises(FacedanError, match="20x20"):
        run(path, images(2, 20, 20), {"input": "20"})


def test_weights_beside_the_graph_are_read(tmp_path: Path) -> None:
    model = onnx.load(write(tmp_path / "m.onnx"))
    onnx.save(model, tmp_path / "n.onnx", save_as_external_data=True, location="weights.bin", size_threshold=1024)
    assert read_graph(tmp_path / "n.onnx").external == ((tmp_path / "weights.bin").resolve(),)
    np.testing.assert_array_equal(run(tmp_path / "n.onnx", images()), run(tmp_path / "m.onnx", images()))
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(FacedanError, match=r"weights\.bin"):
        read_graph(tmp_path / "n.onnx")
