from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from tiny import ADAPT, PRETRAIN, Notes, same

from facedan_cli.config.common import EvaluateConfig
from facedan_cli.config.table import TABLE_ROWS, TableConfig
from facedan_cli.errors import FacedanError, Interrupted, UsageError
from facedan_cli.evaluation.protocols import evaluate_feret, evaluate_gbu, evaluate_identify
from facedan_cli.evaluation.result import EvaluateResult
from facedan_cli.figures.page import Table
from facedan_cli.protocols.feret import read_feret
from facedan_cli.protocols.gbu import read_gbu
from facedan_cli.protocols.sigset import Record, write_sigset
from facedan_cli.table.fill import TableProtocol, fill_table
from facedan_cli.table.formats import as_latex, as_markdown, differences_table, rates_table
from facedan_cli.table.reported import TABLE_1, TABLE_2, reported_feret, reported_gbu
from facedan_cli.table.result import CSV_HEADER, TableResult
from facedan_cli.table.runs import ON_REQUEST, as_loaded, plan_table, resolve_rows
from facedan_cli.workspace import Workspace

pytestmark = pytest.mark.usefixtures("_no_figures")
EVALUATE = EvaluateConfig(far=("0.1", "0.5"), replicates=50)
CONFIG = TableConfig(rows=resolve_rows(None, "gbu", None), pretrain=PRETRAIN, adapt=ADAPT, evaluate=EVALUATE)
RUNS_IN_TRAINED = ("before", "control", "dan_s7", "dan_m67")


def by_gbu(place: Workspace, reported: Any = None) -> TableProtocol:
    return TableProtocol("gbu", lambda how, report: measured(place, how), reported)


def measured(place: Workspace, how: EvaluateConfig) -> EvaluateResult:
    return evaluate_gbu(how, place, place.dataset("gbu"), place.protocol("gbu"))


@pytest.fixture
def place(trained: Any, tmp_path: Path) -> Workspace:
    """A workspace with four finished runs, to be changed."""
    unmeasured = shutil.ignore_patterns("embeddings", "results")
    return Workspace.open(shutil.copytree(trained.workspace.root, tmp_path / "place", ignore=unmeasured))


@pytest.fixture(scope="module")
def filled(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, TableResult, Notes]:
    """A filled table; not to be changed."""
    place = Workspace.open(shutil.copytree(trained.workspace.root, tmp_path_factory.mktemp("filled") / "place"))
    notes = Notes()
    return place, fill_table(CONFIG, place, by_gbu(place), report=notes), notes


def runs_of(result: TableResult) -> dict[str, str]:
    return {row.key: row.runs[0] for row in result.rows if row.runs}


def test_what_is_missing_is_trained_and_what_is_finished_is_taken(filled: Any, trained: Any) -> None:
    place, result, notes = filled
    found = runs_of(result)
    assert list(found) == ["source", "control", "s7", "s67", "m7", "m67"]
    there = {name: getattr(trained, name).name for name in RUNS_IN_TRAINED}
    assert [found[row] for row in ("source", "control", "s7", "m67")] == list(there.values())
    for name in there.values():
        old, new = (
            root / "runs" / name / "checkpoints" / "model.safetensors" for root in (trained.workspace.root, place.root)
        )
        assert old.stat().st_mtime_ns == new.stat().st_mtime_ns
    assert [note for note in notes.notes if note.endswith("is trained")] == [
        f"4 of 6, s67, seed 0: {found['s67']} is trained",
        f"5 of 6, m7, seed 0: {found['m7']} is trained",
    ]
    assert sum("is finished already" in note for note in notes.notes) == 4
    for row, kernels, layers in (("s67", 1, "fc6,fc7"), ("m7", 5, "fc7")):
        config = json.loads((place.root / "runs" / found[row] / "run.json").read_text(encoding="utf-8"))["config"]
        assert (config["kernels"], config["layers"], config["lambda"]) == (kernels, layers, 0.5)


def test_the_same_table_again_trains_nothing_and_lies_in_the_same_place(filled: Any) -> None:
    place, result, _ = filled
    assert [cell.state for cell in plan_table(CONFIG, place)] == ["finished"] * 6
    again = fill_table(CONFIG, place, by_gbu(place))
    assert (again.directory, again.rows) == (result.directory, result.rows)
    other = fill_table(replace(CONFIG, rows=("source",)), place, by_gbu(place))
    assert other.directory != result.directory


def test_the_figures_are_those_of_evaluate(filled: Any) -> None:
    place, result, _ = filled
    runs = runs_of(result)
    whole = measured(place, replace(EVALUATE, model=tuple(runs.values())))
    fused = measured(place, replace(EVALUATE, model=tuple(runs[row] for row in ("s7", "s67", "m7", "m67")), fuse=True))
    expected = dict(zip(runs, whole.models, strict=True)) | {"fusion": fused.models[-1]}
    for row in result.rows:
        of_row = expected[row.key].partitions
        assert row.rates.keys() == {(name, far) for name in ("Good", "Bad", "Ugly") for far in ("0.1", "0.5")}
        for (partition, far), spread in row.rates.items():
            rates = of_row[partition].rates
            assert (spread.values, spread.bounds) == ((rates.values[far],), rates.intervals[far])
    assert [row.name for row in result.rows] == [
        *("VGG-mini-source", "λ = 0", "DAN_s7", "DAN_s67", "DAN_m7", "DAN_m67", "fusion"),
    ]
    names = {row.key: model.name for row, model in zip(result.rows, whole.models, strict=False)}
    known = {(d.a, d.b, d.partition, d.at): d for d in whole.differences}
    compared = [gain for gain in result.differences if gain.row != "fusion"]
    assert len(compared) == (5 + 4) * 6
    for gain in compared:
        found = known[names[gain.reference], names[gain.row], gain.partition, gain.at]
        assert (gain.spread.values, gain.spread.bounds) == ((found.value,), found.interval)
        assert gain.distinguishable == (found.distinguishable,)


def test_several_seeds_have_models_of_their_own_and_show_their_range(place: Workspace, trained: Any) -> None:
    init = str(trained.before / "checkpoints" / "model.safetensors")
    how = replace(EVALUATE, ci="none")
    config = replace(
        CONFIG,
        rows=("vgg", "source", "control", "m67"),
        seeds=(0, 3),
        pretrain=replace(PRETRAIN, init=init),
        evaluate=how,
    )
    result = fill_table(config, place, by_gbu(place))
    vgg, source, control, m67 = result.rows
    assert (vgg.name, vgg.runs) == ("VGG-mini", {})
    for row in (source, control, m67):
        assert len({row.runs[0], row.runs[3]}) == 2
    per_seed = [measured(place, replace(how, model=(source.runs[s], m67.runs[s]))).models for s in (0, 3)]
    for position, row in enumerate((source, m67)):
        for (partition, far), spread in row.rates.items():
            values = [models[position].partitions[partition].rates.values[far] for models in per_seed]
            assert spread.values == tuple(values)
            assert spread.mean == pytest.approx(sum(values) / 2)
            assert spread.bounds == (min(values), max(values))
    for gain in result.differences:
        a, b = (next(row for row in result.rows if row.key == key) for key in (gain.reference, gain.row))
        pairs = zip(a.rates[gain.partition, gain.at].values, b.rates[gain.partition, gain.at].values, strict=True)
        assert gain.spread.values == pytest.approx([after - before for before, after in pairs])
    config_of = [json.loads((place.root / "runs" / m67.runs[s] / "run.json").read_text())["config"] for s in (0, 3)]
    assert [(c["seed"], c["init"]) for c in config_of] == [(0, source.runs[0]), (3, source.runs[3])]
    assert "mean over the seeds 0, 3 [lowest, highest]" in rates_table(result).notes[0]


def test_the_row_vgg_is_the_network_as_its_weights_make_it(place: Workspace, trained: Any) -> None:
    init = str(trained.before / "checkpoints" / "model.safetensors")
    config = replace(CONFIG, rows=("vgg",), pretrain=replace(PRETRAIN, init=init))
    assert plan_table(config, place) == []
    (row,) = fill_table(config, place, by_gbu(place)).rows
    (model,) = measured(place, replace(EVALUATE, model=(trained.before.name,))).models
    assert {key: spread.values[0] for key, spread in row.rates.items()} == {
        (name, far): rate for name, figure in model.partitions.items() for far, rate in figure.rates.values.items()
    }
    (written,) = (place.root / "cache").glob("weights-vggface-mini-*.safetensors")
    before = written.stat().st_mtime_ns
    fill_table(config, place, by_gbu(place))
    assert written.stat().st_mtime_ns == before
    whole = written.read_bytes()
    for damaged in (b"", whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):
        written.write_bytes(damaged)
        assert as_loaded(config.pretrain, place, Notes()) == written
        made = load_file(written)  # but for its classifier, of which nothing is asked
        assert all(torch.equal(made[key], value) for key, value in load_file(init).items() if "classifier" not in key)


def test_an_interrupted_table_goes_on(place: Workspace, trained: Any) -> None:
    shutil.rmtree(place.root / "runs" / trained.control.name)
    shutil.rmtree(place.root / "runs" / trained.dan_m67.name)
    config = replace(CONFIG, rows=("source", "control", "m67"), evaluate=replace(EVALUATE, replicates=0))
    with pytest.raises(Interrupted):
        fill_table(config, place, by_gbu(place), report=Notes(stop_at=3))
    assert not (place.root / "results").exists()
    assert [(cell.row, cell.state) for cell in plan_table(config, place)] == [
        *(("source", "finished"), ("control", "to be resumed"), ("m67", "to be run")),
    ]
    result = fill_table(config, place, by_gbu(place))
    assert result.rows[0].rates["Good", "0.1"].bounds is None
    for cell, whole in zip(plan_table(config, place), (trained.before, trained.control, trained.dan_m67), strict=True):
        assert cell.run is not None
        assert same(cell.run, replace(cell.run, directory=whole))


def test_before_stage_1_the_adaptations_have_no_name_yet(workspace: Workspace) -> None:
    cells = plan_table(replace(CONFIG, seeds=(0, 1)), workspace)
    assert [(cell.row, cell.seed) for cell in cells[:3]] == [("source", 0), ("control", 0), ("s7", 0)]
    assert len(cells) == 12
    assert [cell.run is None for cell in cells] == [False, *[True] * 5] * 2
    assert not (workspace.root / "runs").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"adapt": replace(ADAPT, lambda_=0.0)}, "every row would be the control"),
        ({"adapt": replace(ADAPT, target="nowhere")}, "no data set 'nowhere'"),
        ({"adapt": replace(ADAPT, estimator="best")}, "--estimator does not know 'best'"),
        ({"adapt": replace(ADAPT, backbone_lr_mult=-1.0)}, "--backbone-lr-mult must be a number from 0"),
        ({"adapt": replace(ADAPT, target="casia")}, "source and target are the same"),
        ({"pretrain": replace(PRETRAIN, model="pcanet")}, "no network 'pcanet'"),
        ({"rows": ("lbp", "source"), "evaluate": replace(EVALUATE, flip=True)}, "mean nothing for lbp"),
        ({"evaluate": replace(EVALUATE, far=("2",))}, "'2'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(
    workspace: Workspace, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(FacedanError, match=message):
        fill_table(replace(CONFIG, **change), workspace, by_gbu(workspace))
    assert not (workspace.root / "runs").exists()


def test_images_that_cannot_be_used_are_listed_and_said(place: Workspace) -> None:
    (place.root / "aligned" / "gbu" / "00001d0.png").write_bytes(b"no image")
    (place.root / "aligned" / "frgc" / "broken.png").write_bytes(b"no image")
    result = fill_table(replace(CONFIG, rows=("source", "m67")), place, by_gbu(place))
    assert result.set_aside is not None
    listed = result.set_aside.read_text(encoding="utf-8")
    assert "00001d0" in listed
    assert "broken.png" in listed
    assert any("could not be used" in note for note in rates_table(result).notes)


def test_the_baselines_have_rows_where_they_are_asked_for(place: Workspace) -> None:
    config = replace(CONFIG, rows=("lbp", "pcanet"), seeds=(0, 1))
    result = fill_table(config, place, by_gbu(place))
    lbp, pcanet = result.rows
    assert (lbp.name, lbp.runs, pcanet.name) == ("LBP", {}, "PCANet")
    assert len(set(pcanet.runs.values())) == 1
    for row, name in ((lbp, "lbp"), (pcanet, pcanet.runs[0])):
        (model,) = measured(place, replace(EVALUATE, model=(name,))).models
        assert row.rates["Bad", "0.5"].values == (model.partitions["Bad"].rates.values["0.5"],)


def test_feret_has_a_mean_and_the_papers_figures(place: Workspace) -> None:
    lists, faces = place.protocol("feret"), place.root / "aligned" / "feret"
    faces.mkdir()
    for name, last in {"fa": 0, "fb": 1, "fc": 2, "dup1": 3, "dup2": 3}.items():
        images = [f"{identity:05d}fa010_93083{last}" for identity in range(4)]
        write_sigset(lists / f"{name}.xml", [Record(image[:5], f"{image}.jpg") for image in images])
        for identity, image in enumerate(images):
            shutil.copy(place.root / "aligned" / "gbu" / f"{identity:05d}d{last}.png", faces / f"{image}.png")

    def by(how: EvaluateConfig) -> EvaluateResult:
        return evaluate_feret(how, place, place.dataset("feret"), lists, any_lists=True)

    config = replace(CONFIG, rows=("lbp", "source", "m67"), seeds=(0, 1))
    result = fill_table(config, place, TableProtocol("feret", lambda how, report: by(how), TABLE_2))
    partitions = ("fb", "fc", "dup1", "dup2")
    for row in result.rows:
        rates = [row.rates[name, "1"] for name in partitions]
        assert [len(rate.values) for rate in rates] == [1 if row.key == "lbp" else 2] * 4
        seeds = zip(*(rate.values for rate in rates), strict=True)
        assert row.rates["mean", "1"].values == pytest.approx([sum(values) / 4 for values in seeds])
    shown = rates_table(result)
    assert shown.header == ["method", *(cell for name in (*partitions, "mean") for cell in (name, "paper"))]
    assert shown.rows[0][2::2] == ["97.00", "79.00", "66.00", "64.00", "81.00"]
    assert [len(row) for row in shown.rows] == [11] * 3
    assert not any("[" in cell for cell in shown.rows[0])  # one model for both seeds: no range
    assert all("[" in cell for cell in shown.rows[1][1::2])


def test_searches_have_rank_1_rates(place: Workspace) -> None:
    faces = place.root / "aligned" / "casia"
    for part, images in (("known", "01"), ("asked", "23")):
        for file in (file for file in faces.glob("*/*.png") if file.stem in images):
            (faces.parent / part / file.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, faces.parent / part / file.parent.name)
    known, asked = place.dataset("known"), place.dataset("asked")
    protocol = TableProtocol("identify", lambda how, report: evaluate_identify(how, place, known, asked))
    result = fill_table(replace(CONFIG, rows=("source", "control")), place, protocol)
    assert not result.verifies
    model = evaluate_identify(replace(EVALUATE, model=(result.rows[0].runs[0],)), place, known, asked).models[0]
    assert result.rows[0].rates["all", "1"].values == (model.partitions["all"].rates.values["1"],)
    assert rates_table(result).header == ["method", "rank 1"]
    assert {gain.measure for gain in result.differences} == {"rank1"}
    # The faces are copies of the source's: what evaluate says of that stands below the table and in its summary.
    told = [warning for warning in result.warnings if "was trained on 16 of the 16 images that are measured" in warning]
    assert len(told) == 2
    assert {f"! {warning}" for warning in told} <= set(rates_table(result).notes)
    assert set(told) <= set(result.summary()["warnings"])


USUAL = tuple(row for row in TABLE_ROWS if row not in ON_REQUEST)


@pytest.mark.parametrize(
    ("asked", "protocol", "init", "rows"),
    [
        (None, "gbu", None, USUAL[3:]),
        (None, "gbu", "weights.pth", USUAL[2:]),
        (None, "feret", None, (*USUAL[:2], *USUAL[3:])),
        (None, "feret", "weights.pth", USUAL),
        ("m67,adabn,control", "gbu", None, ("control", "adabn", "m67")),
        ("m67, source,m67", "gbu", None, ("source", "m67")),
        ("lbp", "pairs", None, ("lbp",)),
    ],
)
def test_rows_stand_in_the_papers_order(asked: str, protocol: str, init: str, rows: tuple[str, ...]) -> None:
    assert resolve_rows(asked, protocol, init) == rows


@pytest.mark.parametrize(
    ("asked", "message"),
    [("m68", "--rows does not know 'm68'"), ("vgg", "weights that --init names"), ("m67,fusion", "two adapted models")],
)
def test_rows_that_cannot_be_are_refused(asked: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve_rows(asked, "gbu", None)


def test_the_papers_averages_are_the_means_of_its_rates() -> None:
    for row, (*rates, average) in TABLE_2.rows.items():
        close = abs(sum(rates) / 4 - average) < 0.0051
        assert close == (row != "lbp")  # the mean of another test


def test_the_papers_figures_are_of_its_protocols_alone(shared_data: Path, place: Workspace, tmp_path: Path) -> None:
    assert reported_gbu(read_gbu(shared_data / "gbu")) is TABLE_1
    assert reported_gbu(read_gbu(place.protocol("gbu"))) is None
    partitions = read_gbu(shared_data / "gbu")
    for name, partition in partitions.items():
        query = partition.query[:-1] if name == "Ugly" else partition.query
        write_sigset(tmp_path / "fewer" / f"GBU_{name}_Query.xml", query)
        write_sigset(tmp_path / "fewer" / f"GBU_{name}_Target.xml", partition.target)
    assert reported_gbu(read_gbu(tmp_path / "fewer")) is None
    lists = read_feret(shared_data / "feret")
    assert reported_feret(lists) is TABLE_2
    assert reported_feret(replace(lists, probes={**lists.probes, "fb": lists.probes["fb"][1:]})) is None


def test_the_papers_figures_stand_beside_ours_at_its_far(filled: Any) -> None:
    place, without, _ = filled
    config = replace(CONFIG, rows=("source", "control", "m67"), evaluate=replace(EVALUATE, far=("0.001", "0.1")))
    result = fill_table(config, place, by_gbu(place, TABLE_1))
    shown = rates_table(result)
    assert shown.header == [
        "method",
        *(cell for name in ("Good", "Bad", "Ugly") for cell in (f"{name} @ FAR 0.001", "paper", f"{name} @ FAR 0.1")),
    ]
    beside = {row[0]: [row[2], row[5], row[8]] for row in shown.rows}
    assert beside == {
        "VGG-mini-source": ["95.57", "73.55", "48.80"],
        "λ = 0": ["–"] * 3,
        "DAN_m67": ["98.93", "88.87", "69.42"],
        "FRVT 2006 fusion": ["98.00", "80.00", "15.00"],
    }
    assert "too few impostors" in " ".join(shown.notes)  # 12 of them, at a FAR of 0.001
    figures = {row["row"]: row["figures"] for row in result.summary()["rows"]}
    assert [(f["at"], f["paper"]) for f in figures["m67"][:2]] == [("0.001", 0.9893), ("0.1", None)]
    assert result.summary()["published"]["table"] == "Table I"
    assert without.summary()["published"] is None
    assert "paper" not in rates_table(without).header


def test_all_forms_hold_the_same_rows(filled: Any) -> None:
    _, result, _ = filled
    assert {path.name for path in result.directory.iterdir()} == {
        *("summary.json", "table.csv", "table.md", "table.tex"),
    }
    summary = json.loads((result.directory / "summary.json").read_text(encoding="utf-8"))
    assert summary == result.summary()
    assert all(Path(path).is_dir() for path in summary["evaluations"]["0"])
    with (result.directory / "table.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == CSV_HEADER
    assert [(row["row"], row["partition"], row["at"], float(row["value"])) for row in rows] == [
        (row["row"], figure["partition"], figure["at"], figure["mean"])
        for row in summary["rows"]
        for figure in row["figures"]
    ]
    text = (result.directory / "table.md").read_text(encoding="utf-8")
    tables = [rates_table(result), differences_table(result)]
    for shown in tables:
        assert shown is not None
        for row in shown.rows:
            assert [cell.replace("_", "\\_").replace("*", "\\*") for cell in row] in cells_of_markdown(text)
    tex = (result.directory / "table.tex").read_text(encoding="utf-8")
    assert tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") == 2
    assert r"DAN$_{\mathrm{m67}}$ $-$ VGG-mini-source" in tex
    assert outside_comments(tex).isascii()


def cells_of_markdown(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]


def outside_comments(tex: str) -> str:
    return "\n".join(line for line in tex.splitlines() if not line.startswith("%"))


TEXTS = st.text(st.sampled_from("aB1 &%$#_{}\\~^λ−→†–|*`<[]-"), max_size=12)


@given(st.integers(2, 4).flatmap(lambda n: st.lists(st.lists(TEXTS, min_size=n, max_size=n), min_size=2, max_size=4)))
def test_latex_stays_balanced_whatever_the_names_are(cells: list[list[str]]) -> None:
    tex = as_latex(Table("Title", cells[0], cells[1:], ["a note\nof two lines"]))
    lines = tex.splitlines()
    assert [line.startswith("%") for line in lines[:2]] == [True, True]
    body = "\n".join(lines[3:-1])
    plain = body.replace("\\\\\n", "\n")
    for command in (r"\&", r"\%", r"\$", r"\#", r"\_", r"\{", r"\}"):
        plain = plain.replace(command, "")
    assert plain.count("{") == plain.count("}")
    assert plain.count("$") % 2 == 0
    assert not set("%#~<|") & set(plain)
    assert not re.search(r"\\\\\n *[\[*]", body)
    rows = [line for line in lines[3:-1] if line.endswith(r" \\")]
    assert [row.replace(r"\&", "").count("&") for row in rows] == [len(cells[0]) - 1] * len(cells)


def test_latex_has_minus_signs_before_numbers_and_hyphens_in_names() -> None:
    tex = as_latex(Table("Title", ["VGG-16", "[-0.8, +1.0]"], [["a-1", "-3.1"], ["[b]", "*"]]))
    assert [line for line in tex.splitlines() if "&" in line] == [
        r"VGG-16 & [$-$0.8, +1.0] \\",
        r"a-1 & $-$3.1 \\",
        r"{}[b] & * \\",
    ]


@given(st.lists(TEXTS, min_size=2, max_size=4))
def test_markdown_keeps_its_columns(cells: list[str]) -> None:
    def columns(line: str) -> int:
        return line.replace("\\\\", "").replace("\\|", "").count("|") - 1

    lines = as_markdown(Table("Title", cells, [cells])).splitlines()[2:]
    assert [columns(line) for line in lines] == [len(cells)] * 3


def test_models_and_embeddings_of_others_are_further_rows(filled: Any) -> None:
    place, without, _ = filled
    embedded = next((place.root / "embeddings").glob("gbu-*"))
    further = replace(EVALUATE, embeddings=(str(embedded),))
    result = fill_table(replace(CONFIG, evaluate=further), place, by_gbu(place))
    assert [row.key for row in result.rows] == [*CONFIG.rows, str(embedded)]
    assert [row.rates for row in result.rows[:-1]] == [row.rates for row in without.rows]
    assert result.rows[-1].name == embedded.name
    assert any(row.rates == result.rows[-1].rates for row in without.rows)
    assert {one.row for one in result.differences} == {one.row for one in without.differences} | {str(embedded)}
    twice = replace(EVALUATE, model=(next(iter(without.rows[1].runs.values())),))
    with pytest.raises(FacedanError, match="in the table already"):
        fill_table(replace(CONFIG, evaluate=twice), place, by_gbu(place))
    with pytest.raises(FacedanError, match="no model"):
        fill_table(replace(CONFIG, evaluate=replace(EVALUATE, model=("gone.onnx",))), place, by_gbu(place))
