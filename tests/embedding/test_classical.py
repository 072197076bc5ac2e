from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Outcome
from safetensors.torch import load_file
from tiny import ADAPT, Notes

from facedan_cli.config.common import EmbedConfig, EvaluateConfig
from facedan_cli.config.training import PretrainConfig
from facedan_cli.data.alignments import Alignment
from facedan_cli.data.batches import read_face, square_face
from facedan_cli.data.dataset import read_dataset
from facedan_cli.data.manifest import ALIGNED, AlignedRecord
from facedan_cli.data.templates import TEMPLATES
from facedan_cli.embedding.embed import EmbedResult, embed
from facedan_cli.embedding.extractor import framed
from facedan_cli.embedding.model import LBP, FaceModel, find_model
from facedan_cli.embedding.similarity import CHI_SQUARE, COSINE, Similarity
from facedan_cli.errors import FacedanError, UsageError
from facedan_cli.evaluation import all_pairs
from facedan_cli.evaluation.all_pairs import evaluate_verify
from facedan_cli.evaluation.protocols import evaluate_gbu
from facedan_cli.evaluation.trials import ImageSet, Trials
from facedan_cli.metrics.fusion import fuse
from facedan_cli.models import lbp, pcanet
from facedan_cli.models.checkpoint import load_checkpoint, load_pcanet, read_card
from facedan_cli.models.frame import Frame
from facedan_cli.protocols.bee import read_matrix
from facedan_cli.report import Report
from facedan_cli.runs import Run, checkpoint_of
from facedan_cli.training import pcanet as stage
from facedan_cli.training.adapt import plan_adapt
from facedan_cli.training.pretrain import plan_pretrain, pretrain
from facedan_cli.workspace import MANIFEST_FILE, Workspace

PCANET = PretrainConfig(source="frgc", model="pcanet")
EVALUATE = EvaluateConfig(far=("0.1",), replicates=10)


def learn(workspace: Workspace, report: Report | None = None, **options: Any) -> Run:
    return pretrain(plan_pretrain(replace(PCANET, **options), workspace), report=report or Report()).run


def features(workspace: Workspace, model: FaceModel, report: Report | None = None, **options: Any) -> EmbedResult:
    dataset = workspace.dataset("casia")
    config = replace(EmbedConfig(dataset="casia", batch=5), **options)
    return embed(config, read_dataset(dataset.root), model, workspace, report=report or Report())


def windows(root: Path, frame: Frame, template: str = "vggface") -> torch.Tensor:
    """The windows of a tree's faces, one at a time."""
    eyes = TEMPLATES[template].points(250)[:2]
    faces = [torch.from_numpy(read_face(path, 250)) for path in sorted(root.rglob("*.png"))]
    return torch.cat([frame.cut(face.permute(2, 0, 1)[None], eyes) for face in faces])


def write_manifest(workspace: Workspace, template: str) -> None:
    record = AlignedRecord(
        path="a.jpg", output="casia/person0/0.jpg", status=ALIGNED, template=template, size=72, bytes=1, modified=1
    )
    (workspace.root / "aligned" / MANIFEST_FILE).write_text(record.to_line(), encoding="utf-8")


def slow_chi_square(a: np.ndarray, b: np.ndarray) -> float:
    return float(sum((x - y) ** 2 / (x + y) for x, y in zip(a.tolist(), b.tolist(), strict=True) if x + y))


@pytest.fixture(scope="module")
def learnt(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Run]:
    """A workspace with a PCANet of `frgc`, whose images are nobody's; tests may add to it."""
    workspace = Workspace.open(shutil.copytree(drawn, tmp_path_factory.mktemp("learnt") / "workspace"))
    return workspace, learn(workspace)


def test_lbp_gives_the_weighted_histograms_of_the_window_between_the_eyes(workspace: Workspace) -> None:
    report = Notes()
    vectors, paths, _ = features(workspace, LBP, report).load()
    expected = lbp.features(windows(workspace.root / "aligned" / "casia", lbp.FRAME))
    np.testing.assert_array_equal(vectors, expected)
    assert len(paths) == 16
    assert any("taken to be vggface" in note for note in report.notes)


def test_the_eyes_are_where_the_manifests_template_has_them(workspace: Workspace) -> None:
    assumed = features(workspace, LBP)
    write_manifest(workspace, "arcface")
    report = Notes()
    stated = features(workspace, LBP, report)
    assert stated.directory != assumed.directory
    expected = lbp.features(windows(workspace.root / "aligned" / "casia", lbp.FRAME, "arcface"))
    np.testing.assert_array_equal(stated.load()[0], expected)
    assert report.notes == []
    write_manifest(workspace, "given")
    assert features(workspace, LBP).directory == assumed.directory


@pytest.mark.parametrize("similarity", [COSINE, CHI_SQUARE])
def test_trials_are_scored_by_the_similarity(similarity: Similarity) -> None:
    rng = np.random.default_rng(0)
    query, target = (rng.random((count, 7), np.float32) for count in (6, 5))
    query[:, 2] = target[:, 2] = 0  # a label that no face has
    slow = {COSINE: lambda a, b: sum(a * b), CHI_SQUARE: lambda a, b: -slow_chi_square(a, b)}[similarity]
    rows = np.array([4, 0, 2]), np.array([3, 1, 1])
    sides = [ImageSet(row, np.array(["a", "b", "c"]), []) for row in rows]
    all_pairs = Trials(*sides).score(query, target, similarity)
    np.testing.assert_allclose(all_pairs, [[slow(query[i], target[j]) for j in rows[1]] for i in rows[0]], rtol=1e-5)
    paired = Trials(*sides, all_pairs=False, same=np.ones(3, bool)).score(query, target, similarity)
    np.testing.assert_allclose(paired, np.diagonal(all_pairs), rtol=1e-5)
    assert all_pairs.dtype == paired.dtype == np.float32


def test_pcanet_is_learnt_from_faces_that_are_nobodys(learnt: tuple[Workspace, Run]) -> None:
    workspace, run = learnt
    card = read_card(run.checkpoint)
    assert (card.model, card.stage, card.run, card.identities) == ("pcanet", "pretrain", run.name, ())
    assert card.config == {"model": "pcanet", "seed": 0}
    expected = pcanet.fit(windows(workspace.root / "aligned" / "frgc", pcanet.FRAME), pcanet.Spec())
    found = load_file(run.checkpoint)
    assert found.keys() == expected.state_dict().keys()
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(found[name], tensor)
    assert json.loads(run.log.read_text()) == {"images": 16, "whitened_on": 16, "dimensions": 15}
    assert run.finished


def test_pcanets_features_are_whitened_and_of_length_one(learnt: tuple[Workspace, Run]) -> None:
    workspace, run = learnt
    vectors = features(workspace, find_model(workspace, run.name)).load()[0]
    network = load_pcanet(run.checkpoint)
    rows = network(windows(workspace.root / "aligned" / "casia", pcanet.FRAME)).numpy()
    np.testing.assert_allclose(vectors, rows / np.linalg.norm(rows, axis=1, keepdims=True), atol=2e-6)


def test_a_finished_pcanet_is_not_learnt_again_and_an_interrupted_one_is(workspace: Workspace) -> None:
    class Stop(Notes):
        def note(self, text: str) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(workspace, Stop())
    job = plan_pretrain(PCANET, workspace)
    assert job.run.record["status"] == "interrupted"
    assert not pretrain(job).skipped
    written = job.run.checkpoint.stat().st_mtime_ns
    again = pretrain(plan_pretrain(PCANET, workspace))
    assert (again.skipped, again.metrics["dimensions"]) == (True, 15)
    assert job.run.checkpoint.stat().st_mtime_ns == written


def test_the_whitening_may_be_learnt_from_a_gallery(learnt: tuple[Workspace, Run]) -> None:
    workspace, run = learnt
    other = learn(workspace, gallery="gbu")
    assert other.name.startswith("pretrain-frgc-gbu-")
    tensors, before = load_file(other.checkpoint), load_file(run.checkpoint)
    assert torch.equal(tensors["second"], before["second"])
    counts = pcanet.block_histograms(
        windows(workspace.root / "aligned" / "gbu", pcanet.FRAME), tensors["first"], tensors["second"], pcanet.Spec()
    )
    torch.testing.assert_close(tensors["mean"], counts.float().mean(0))
    assert len(tensors["projection"]) == 23


def test_of_very_many_faces_the_seed_chooses_some(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "MOST_IMAGES", 9)
    report = Notes()
    first, other = learn(workspace, report), learn(workspace, seed=1)
    assert any("9 of the 16 images" in note for note in report.notes)
    assert first.last_metrics["images"] == other.last_metrics["images"] == 9
    assert not torch.equal(load_file(first.checkpoint)["mean"], load_file(other.checkpoint)["mean"])


def test_faces_that_cannot_be_read_are_listed_and_none_or_one_are_too_few(workspace: Workspace) -> None:
    frgc = sorted((workspace.root / "aligned" / "frgc").iterdir())
    frgc[0].write_bytes(b"no image")
    result = pretrain(plan_pretrain(PCANET, workspace))
    assert result.metrics["images"] == 15
    assert result.set_aside is not None
    assert result.set_aside.read_text().startswith(f"{frgc[0].name}\t")
    for path in frgc[:-1]:
        path.write_bytes(b"no image either")
    with pytest.raises(FacedanError, match="whitening"):
        learn(workspace)
    frgc[-1].write_bytes(b"no image either")
    with pytest.raises(FacedanError, match=r"no image under .*frgc can be read"):
        learn(workspace)


def test_they_are_measured_beside_networks_and_fused(trained: Any, learnt: tuple[Workspace, Run]) -> None:
    workspace, run = trained.workspace, learnt[1]
    config = replace(EVALUATE, model=("lbp", str(run.checkpoint), trained.before.name), fuse=True, save_scores=True)
    protocol = workspace.root / "protocols" / "gbu"
    result = evaluate_gbu(config, workspace, workspace.dataset("gbu"), protocol)
    assert [model.name for model in result.models] == ["LBP", "PCANet", "source only", "fusion"]
    assert result.summary()["models"][0]["checkpoint"] is None
    good = {path.stem: read_matrix(path).values for path in (result.directory / "scores").glob("Good-*.mtx")}
    models = [good[f"Good-{name}"] for name in ("LBP", "PCANet", "source-only")]
    assert models[0].max() <= 0
    np.testing.assert_allclose(good["Good-fusion"], fuse(models), rtol=1e-5)


def test_lbp_scores_gbu_by_the_negative_chi_square(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Trials, np.ndarray]] = []
    plain = Trials.compare
    monkeypatch.setattr(Trials, "compare", lambda self, scores: seen.append((self, scores)) or plain(self, scores))
    config = replace(EVALUATE, model=("lbp",))
    evaluate_gbu(config, workspace, workspace.dataset("gbu"), workspace.root / "protocols" / "gbu")
    rows = lbp.features(windows(workspace.root / "aligned" / "gbu", lbp.FRAME)).double().numpy()
    for trials, scores in seen[:3]:
        expected = [[-slow_chi_square(rows[q], rows[t]) for t in trials.target.rows] for q in trials.query.rows]
        np.testing.assert_allclose(scores, expected, rtol=1e-4)


def test_what_is_streamed_must_be_an_inner_product(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    casia = workspace.dataset("casia")
    config = replace(EVALUATE, model=("lbp",))
    assert evaluate_verify(config, workspace, casia, casia).models[0].name == "LBP"
    monkeypatch.setattr(all_pairs, "MOST_IN_MEMORY", 10)
    with pytest.raises(UsageError, match="inner product; 'LBP'"):
        evaluate_verify(config, workspace, casia, casia)


@pytest.mark.parametrize("options", [{"layer": "fc7"}, {"flip": True}])
def test_options_of_networks_mean_nothing_for_them(
    learnt: tuple[Workspace, Run], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(all_pairs, "MOST_IN_MEMORY", 10)
    workspace, run = learnt
    for model, name in ((LBP, "LBP"), (FaceModel.of(run.checkpoint), "PCANet")):
        with pytest.raises(UsageError, match=f"--{next(iter(options))} .* {name}"):
            features(workspace, model, **options)
    with pytest.raises(UsageError, match="means nothing for LBP"):
        evaluate_verify(replace(EVALUATE, model=("lbp",), **options), workspace, *[workspace.dataset("casia")] * 2)


def test_lbp_is_a_name_unless_something_has_it(
    workspace: Workspace, learnt: tuple[Workspace, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_model(workspace, "lbp") is LBP
    shutil.copytree(learnt[1].directory, tmp_path / "lbp")
    assert find_model(workspace, "lbp").checkpoint == checkpoint_of(Path("lbp"))
    shutil.rmtree(tmp_path / "lbp")
    shutil.copytree(learnt[1].directory, workspace.root / "runs" / "lbp")
    assert find_model(workspace, "lbp").checkpoint == checkpoint_of(workspace.root / "runs" / "lbp")


def test_there_is_nothing_to_adapt(learnt: tuple[Workspace, Run]) -> None:
    workspace, run = learnt
    for name, label in (("lbp", "LBP"), (run.name, "PCANet")):
        with pytest.raises(UsageError, match=f"is {label}, which has no layers to adapt"):
            plan_adapt(replace(ADAPT, init=name), workspace)
    with pytest.raises(FacedanError, match="holds a PCANet, which is no network"):
        load_checkpoint(run.checkpoint)


def test_adaptation_passes_over_a_pcanet_that_is_newer_than_the_network(trained: Any, tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    for name in ("aligned", f"runs/{trained.before.name}"):
        shutil.copytree(trained.workspace.root / name, tmp_path / name)
    newer = learn(workspace, source="casia")
    assert find_model(workspace, None).checkpoint == newer.checkpoint
    assert plan_adapt(ADAPT, workspace).init == checkpoint_of(tmp_path / "runs" / trained.before.name)


@pytest.mark.parametrize(
    ("typed", "what"),
    [
        (("--lr", "1"), "--lr means nothing for --model pcanet"),
        (("--holdout", "0"), "--holdout means nothing for --model pcanet"),
        (("--init", "x"), "--init means nothing for --model pcanet"),
    ],
)
def test_pretrain_refuses_what_is_typed_and_means_nothing(
    workspace: Workspace, facedan: Callable[..., Outcome], typed: tuple[str, str], what: str
) -> None:
    shown = facedan("pretrain", "-w", workspace.root, "--source", "frgc", "--model", "pcanet", *typed)
    assert (shown.code, shown.out) == (2, "")
    assert what in shown.err


def test_pretrain_passes_over_what_facedan_toml_says_of_networks(
    workspace: Workspace, facedan: Callable[..., Outcome]
) -> None:
    assert "iterations = 6" in (workspace.root / "facedan.toml").read_text()
    shown = facedan("pretrain", "-w", workspace.root, "--source", "frgc", "--model", "pcanet", "--json")
    assert shown.code == 0
    made = json.loads(shown.out)
    assert made["metrics"] == {"images": 16, "whitened_on": 16, "dimensions": 15}
    again = facedan("pretrain", "-w", workspace.root, "--config", f"{made['run']}/config.toml", "--source", "frgc")
    assert "finished already" in again.err


def test_lbp_is_not_trained_and_networks_have_no_gallery(workspace: Workspace) -> None:
    with pytest.raises(UsageError, match="LBP needs no training"):
        plan_pretrain(PretrainConfig(source="casia", model="lbp"), workspace)
    with pytest.raises(UsageError, match="--gallery"):
        plan_pretrain(PretrainConfig(source="casia", model="vggface-mini", gallery="gbu"), workspace)


def test_torchruns_processes_are_too_many(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="pcanet is learnt by one process"):
        plan_pretrain(PCANET, workspace)


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("size", [112, 128, 150, 250])
def test_a_window_has_the_eyes_of_faces_on_every_template_in_every_size(name: str, size: int) -> None:
    x, y = np.meshgrid(np.arange(size), np.arange(size))
    eyes = TEMPLATES[name].points(size, 2)
    blobs = sum(np.exp(-((x - eye[0]) ** 2 + (y - eye[1]) ** 2) / (size / 30) ** 2) for eye in eyes)
    face = square_face(np.dstack([(255 * blobs).astype(np.uint8)] * 3), 250)
    (window,) = framed(face[None], lbp.FRAME, Alignment(name, size), torch.device("cpu")).numpy().astype(float)
    for where in (lbp.FRAME.image_left_eye, lbp.FRAME.image_right_eye):
        middle = lbp.FRAME.width / 2
        half = (np.arange(lbp.FRAME.width) < middle) == (where[0] < middle)
        weight = np.where(half, window, 0) ** 2
        rows, columns = np.indices(window.shape)
        centre = (columns * weight).sum() / weight.sum(), (rows * weight).sum() / weight.sum()
        np.testing.assert_allclose(centre, where, atol=0.35)
