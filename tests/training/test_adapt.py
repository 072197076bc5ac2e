from __future__ import annotations

import itertools
import json
import math
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import ADAPT, PRETRAIN, Notes, metrics, same

from facedan_cli.config.models import NETWORKS
from facedan_cli.data.batches import BatchStream, FaceStore, _permutation
from facedan_cli.data.cache import Cache
from facedan_cli.data.dataset import FaceDataset, read_dataset
from facedan_cli.data.manifest import AlignedRecord
from facedan_cli.errors import FacedanError, Interrupted, UsageError
from facedan_cli.models.checkpoint import load_checkpoint, read_card, save_checkpoint
from facedan_cli.models.vggface import VGGFace
from facedan_cli.report import Report
from facedan_cli.runs import checkpoint_of
from facedan_cli.training import step
from facedan_cli.training.adapt import adapt, plan_adapt
from facedan_cli.training.bandwidths import _sample_features
from facedan_cli.training.datasets import TrainingResult, hold_out, part_of
from facedan_cli.training.held_out import HeldOut
from facedan_cli.training.penalty_options import parse_bandwidth, parse_layers, parse_multipliers, resolve_penalty
from facedan_cli.training.pretrain import plan_pretrain, pretrain
from facedan_cli.workspace import Workspace


@pytest.fixture
def pretrained(trained: Any, tmp_path: Path) -> Workspace:
    """A workspace of one's own with a finished pretraining and nothing else."""
    root = shutil.copytree(trained.workspace.root, tmp_path / "pretrained")
    for directory in (root / "runs").glob("adapt-*"):
        shutil.rmtree(directory)
    return Workspace.open(root)


def run(workspace: Workspace, *, report: Report | None = None, **options: Any) -> TrainingResult:
    return adapt(plan_adapt(replace(ADAPT, **options), workspace), report=report or Report())


def test_it_starts_from_the_newest_pretraining_on_the_source_and_says_so(pretrained: Workspace, trained: Any) -> None:
    report = Notes()
    made = run(pretrained, report=report).run
    assert report.notes[-1].startswith(f"starting from {trained.before.name} (")
    card = read_card(made.checkpoint)
    assert (card.stage, card.run, card.model) == ("adapt", made.name, "vggface-mini")
    assert card.identities == read_card(checkpoint_of(trained.before)).identities
    assert made.record["inputs"]["init"]["run"] == trained.before.name
    assert made.record["inputs"]["target"]["images"] == 16
    assert made.record["config"]["init"] == trained.before.name
    last = metrics(made)[-1]
    assert last["step"] == 5
    assert last["loss"] == pytest.approx(last["classification"] + 0.5 * (last["mmd2_fc6"] + last["mmd2_fc7"]), rel=1e-5)
    assert run(pretrained).skipped


def test_an_interrupted_run_keeps_its_bandwidths_and_ends_as_a_whole_one(pretrained: Workspace, trained: Any) -> None:
    with pytest.raises(Interrupted):
        run(pretrained, report=Notes(stop_at=2))
    made = plan_adapt(ADAPT, pretrained).run
    frozen = (made.directory / "bandwidths.json").read_bytes()
    assert run(pretrained).run.name == made.name == trained.dan_m67.name
    assert (made.directory / "bandwidths.json").read_bytes() == frozen
    assert made.checkpoint.read_bytes() == checkpoint_of(trained.dan_m67).read_bytes()
    assert [entry["step"] for entry in metrics(made)] == [1, 2, 3, 4, 5]


def test_the_targets_folder_names_are_not_read(pretrained: Workspace) -> None:
    target = pretrained.root / "aligned" / "frgc"
    for split in ("one identity", "two identities"):
        folder = pretrained.root / "aligned" / split
        for index, image in enumerate(sorted(target.iterdir())):
            identity = "a" if split == "one identity" or index < 8 else "b"
            (folder / identity).mkdir(parents=True, exist_ok=True)
            shutil.copy(image, folder / identity / image.name)
    heap, one, two = (run(pretrained, target=name).run for name in ("frgc", "one identity", "two identities"))
    assert same(heap, one)
    assert same(heap, two)


def test_lambda_acts_and_zero_is_the_control(pretrained: Workspace) -> None:
    control, adapted = run(pretrained, lambda_=0.0).run, run(pretrained, lambda_=5.0).run
    assert not same(control, adapted)
    assert metrics(control)[0]["mmd2_fc7"] == metrics(adapted)[0]["mmd2_fc7"]  # the same batches
    assert metrics(control)[-1]["loss"] == metrics(control)[-1]["classification"]


def test_the_frozen_bandwidth_is_the_median_on_both_domains(pretrained: Workspace, trained: Any) -> None:
    made = run(pretrained).run
    kept = json.loads((made.directory / "bandwidths.json").read_text(encoding="utf-8"))
    assert kept.keys() == {"fc6", "fc7"}
    # Here of the centres of all images, there of random crops.
    network, _ = load_checkpoint(checkpoint_of(trained.before))
    network.train()
    paths = [p for d in ("casia", "frgc") for p in sorted((pretrained.root / "aligned" / d).rglob("*.png"))]
    faces = np.stack([cv2.imread(str(path))[4:68, 4:68, ::-1] for path in paths])
    faces = torch.from_numpy(faces.copy()).permute(0, 3, 1, 2)
    with torch.no_grad():
        features = network(faces.repeat(4, 1, 1, 1))
    medians = {layer: torch.pdist(rows).square().median().item() for layer, rows in features.items()}
    assert kept == pytest.approx(medians, rel=0.3)
    wide = run(pretrained, median="sigma").run
    twice = json.loads((wide.directory / "bandwidths.json").read_text(encoding="utf-8"))
    assert twice == {layer: pytest.approx(2 * gamma) for layer, gamma in kept.items()}


def test_the_bandwidth_is_measured_with_dropout(pretrained: Workspace, trained: Any) -> None:
    network, _ = load_checkpoint(checkpoint_of(trained.before))
    assert isinstance(network, VGGFace)
    network.dropout.probability = 0.5  # as vggface's
    folder = part_of(read_dataset(pretrained.root / "aligned" / "casia"), [0])
    with ThreadPoolExecutor(1) as pool:
        face = FaceStore(folder, network.crop, pool)  # and its mirror image
        one = BatchStream(face, None, 8, network.crop, (0,))
        job = plan_adapt(ADAPT, pretrained)
        features = [_sample_features(network.eval(), (one, one), torch.float32, job.seed) for _ in range(2)]
    for source, target in features:
        assert len(source["fc6"]) == len(target["fc6"]) == 16
        assert len(torch.cat([source["fc6"], target["fc6"]]).round(decimals=3).unique(dim=0)) == 2
        assert len(torch.cat([source["fc7"], target["fc7"]]).round(decimals=3).unique(dim=0)) > 16
    assert torch.equal(features[0][0]["fc7"], features[1][0]["fc7"])


@pytest.fixture
def randomness(monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[list[BatchStream], set[int]]]:
    """Gives what was drawn from since it was last asked: the streams of images, and the seeds of dropout."""
    streams: list[BatchStream] = []
    seeds: list[int] = []
    made, seeded, every = BatchStream.__init__, step.seed_random, torch.manual_seed

    def init(self: BatchStream, *arguments: Any, **named: Any) -> None:
        made(self, *arguments, **named)
        streams.append(self)

    monkeypatch.setattr(BatchStream, "__init__", init)
    monkeypatch.setattr(torch, "manual_seed", lambda seed: seeds.append(seed) or every(seed))
    monkeypatch.setattr(step, "seed_random", lambda seed, device: seeds.append(seed) or seeded(seed, device))

    def since() -> tuple[list[BatchStream], set[int]]:
        found = (streams.copy(), set(seeds))
        streams.clear()
        seeds.clear()
        return found

    return since


def test_no_training_draws_what_another_drew_before_it(
    workspace: Workspace, randomness: Callable[[], tuple[list[BatchStream], set[int]]]
) -> None:
    first = pretrain(plan_pretrain(PRETRAIN, workspace)).run
    again = pretrain(plan_pretrain(replace(PRETRAIN, init=first.name), workspace)).run
    drawn = [randomness()]
    name = again.name
    for _ in range(2):  # an adaptation may go on from an adaptation
        name = run(workspace, init=name).run.name
        drawn.append(randomness())
    one = run(workspace, init=first.name)
    drawn.append(randomness())
    assert one.run.name != name

    streams = [stream for of_run, _ in drawn for stream in of_run]
    assert len(streams) == 2 + 3 * 4  # the bandwidth's too
    orders = {tuple(_permutation(stream.seed, 0, 1000).tolist()) for stream in streams}
    crops = {tuple(stream._drawn(0)[2].flatten().tolist()) for stream in streams}
    assert len(orders) == len(crops) == len(streams)
    for (_, seeds), (_, others) in itertools.combinations(drawn, 2):
        assert not seeds & others


def test_the_same_training_draws_the_same(pretrained: Workspace, randomness: Any) -> None:
    found = []
    for lambda_ in (0.0, 5.0):
        run(pretrained, lambda_=lambda_)
        streams, seeds = randomness()
        found.append(([stream.seed for stream in streams], seeds))
    assert found[0] == found[1]
    run(pretrained, seed=1)
    other = randomness()
    assert not {stream.seed for stream in other[0]} & set(found[0][0])
    assert not other[1] & found[0][1]


def test_a_bandwidth_can_be_given(pretrained: Workspace) -> None:
    made = run(pretrained, bandwidth="1e12").run
    assert abs(metrics(made)[-1]["mmd2_fc7"]) < 1e-6  # for so wide a kernel all points are one
    assert not (made.directory / "bandwidths.json").exists()


def test_one_kernel_one_layer_adapts_that_layer_only(pretrained: Workspace) -> None:
    last = metrics(run(pretrained, kernels=1, layers="fc7").run)[-1]
    assert "mmd2_fc7" in last
    assert "mmd2_fc6" not in last


def test_spellings_of_one_setting_are_one_run(
    pretrained: Workspace, trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = plan_adapt(ADAPT, pretrained).run.name
    for layers in ("fc7,fc6", "fc6, fc7", "fc6,fc7,"):
        assert plan_adapt(replace(ADAPT, layers=layers), pretrained).run.name == name
    assert plan_adapt(replace(ADAPT, init=str(trained.before)), pretrained).run.name == name
    monkeypatch.chdir(pretrained.root)
    assert plan_adapt(replace(ADAPT, source="./aligned/casia", target="aligned/frgc"), pretrained).run.name == name
    assert plan_adapt(replace(ADAPT, layers="fc7:1,fc6:1.0"), pretrained).run.name == name
    assert plan_adapt(replace(ADAPT, bandwidth_multipliers="16,8,4,2,1"), pretrained).run.name == name
    assert plan_adapt(replace(ADAPT, layers="fc6"), pretrained).run.name != name
    assert plan_adapt(replace(ADAPT, layers="fc6:0.5,fc7"), pretrained).run.name != name
    assert plan_adapt(replace(ADAPT, bandwidth_multipliers="1,2,4,8,32"), pretrained).run.name != name


def test_with_other_identities_in_the_source_the_classifier_starts_afresh(pretrained: Workspace, trained: Any) -> None:
    (pretrained.root / "aligned" / "casia" / "person2").rename(pretrained.root / "aligned" / "casia" / "newcomer")
    report = Notes()
    made = run(pretrained, report=report, lr=0.0, weight_decay=0.0).run
    assert any("trained on other identities" in warning for warning in report.warnings)
    card = read_card(made.checkpoint)
    assert card.identities[0] == "newcomer"
    before, after = load_file(checkpoint_of(trained.before)), load_file(made.checkpoint)
    assert not torch.equal(before["classifier.weight"], after["classifier.weight"])
    assert all(torch.equal(before[key], after[key]) for key in before if not key.startswith("classifier."))


def test_target_images_that_cannot_be_read_are_listed(pretrained: Workspace) -> None:
    target = pretrained.root / "aligned" / "frgc"
    first = sorted(target.iterdir())[0]
    first.write_bytes(b"no image")
    result = run(pretrained)
    assert result.set_aside is not None
    assert result.set_aside.read_text(encoding="utf-8") == f"{first.name}\tnot an image of a known format\n"


def test_faces_on_two_templates_are_warned_of(pretrained: Workspace) -> None:
    for name, template in (("casia", "vggface"), ("frgc", "lfw")):
        record = AlignedRecord(
            path="a.jpg", output="a.jpg", status="aligned", template=template, size=250, bytes=1, modified=1
        )
        (pretrained.root / "aligned" / name / "aligned.jsonl").write_text(record.to_line(), encoding="utf-8")
    report = Notes()
    run(pretrained, report=report)
    (warning,) = report.warnings
    assert "'frgc' (lfw at 250 pixels)" in warning  # and not casia, as the network learnt it
    assert "casia" not in warning
    assert warning.endswith("facedan align RAW ALIGNED --for vggface-mini")
    with pytest.raises(FacedanError, match="--strict: the faces of 'frgc'") as caught:
        plan_adapt(replace(ADAPT, strict=True), pretrained)
    assert caught.value.fix == "facedan align RAW ALIGNED --for vggface-mini"
    assert plan_adapt(ADAPT, pretrained).run.finished


def test_faces_of_two_sizes_are_warned_of(pretrained: Workspace) -> None:
    for name, size in (("casia", 250), ("frgc", 72)):
        record = AlignedRecord(
            path="a.jpg", output="a.jpg", status="aligned", template="vggface", size=size, bytes=1, modified=1
        )
        (pretrained.root / "aligned" / name / "aligned.jsonl").write_text(record.to_line(), encoding="utf-8")
    report = Notes()
    run(pretrained, report=report, strict=True)
    (warning,) = report.warnings
    assert "aligned differently (casia on vggface at 250 pixels, frgc on vggface at 72 pixels)" in warning
    assert [note for note in report.notes if "scaled to 72 pixels" in note]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": "fc6,fc8"}, "there is no layer 'fc8' to adapt"),
        ({"layers": "fc6,fc6"}, "must name each layer once"),
        ({"layers": ","}, "names no layer"),
        ({"layers": "fc6:0,fc7"}, "'0' is no weight of a layer"),
        ({"layers": "fc6:", "kernels": 1}, "'' is no weight of a layer"),
        ({"bandwidth_multipliers": "1,-2"}, "--bandwidth-multipliers cannot be '1,-2'"),
        ({"bandwidth_multipliers": "1,1"}, "--bandwidth-multipliers cannot be '1,1'"),
        ({"kernel_weights": "best"}, "--kernel-weights does not know 'best'"),
        ({"discrepancy": "mmd"}, "--discrepancy does not know 'mmd'"),
        ({"discrepancy": "coral", "estimator": "biased"}, "--estimator means nothing for --discrepancy coral"),
        ({"discrepancy": "energy", "bandwidth": "batch"}, "--bandwidth means nothing for --discrepancy energy"),
        ({"discrepancy": "jmmd", "kernel_weights": "optimal"}, "--kernel-weights means nothing for --discrepancy jmmd"),
        ({"discrepancy": "jmmd", "layers": "fc6:2,fc7"}, "they have no weights"),
        ({"memory_bank": -1}, "--memory-bank must be at least 0"),
        ({"memory_bank": 8, "estimator": "linear"}, "--memory-bank means nothing for --estimator linear"),
        ({"kernel_weights": "optimal", "batch": 2}, "needs a --batch of 3 at least, not 2"),
        ({"kernel_weights": "optimal", "estimator": "linear", "batch": 3}, "needs a --batch of 4 at least, not 3"),
        ({"median": "mean"}, "--median does not know 'mean'"),
        ({"median": "sigma", "bandwidth": "3"}, "--median means nothing for --bandwidth 3"),
        ({"median": "sigma", "discrepancy": "coral"}, "--median means nothing for --discrepancy coral"),
        ({"kernels": 2000}, "--kernels must be at least 1 and at most 16"),
        ({"bandwidth_multipliers": "1e-300,1"}, "--bandwidth-multipliers cannot be '1e-300,1'"),
        ({"bandwidth": "1e300"}, "--bandwidth does not know '1e300'"),
        ({"lambda_ramp": -1}, "--lambda-ramp must be at least 0"),
        ({"head": "cosine"}, "--head does not know 'cosine'"),
        ({"margin": 0.5}, "--margin means nothing for --head softmax"),
        ({"head": "arcface", "margin": -0.5}, "--margin must be a positive number"),
        ({"sample_rate": 0.0}, "--sample-rate must be a share up to 1"),
        ({"precision": "fp8"}, "--precision does not know 'fp8'"),
        ({"cache": "tape"}, "--cache does not know 'tape'"),
        ({"grad_accum": 7}, "a batch of 6 cannot be divided into 7 parts"),
        ({"grad_accum": 0}, "--grad-accum must be at least 1"),
        ({"keep_every": 3}, "--keep-every 3 is no multiple of --checkpoint-every 500"),
        ({"shard_classifier": True, "precision": "fp16"}, "--shard-classifier does not go with --precision fp16"),
        ({"backbone_lr_mult": -0.1}, "--backbone-lr-mult must be a number from 0"),
        ({"holdout": -1}, "--holdout must be at least 0"),
        ({"kernels": 0}, "--kernels must be at least 1"),
        ({"lambda_": -0.5}, "--lambda must be a number from 0"),
        ({"lambda_": math.nan}, "--lambda must be a number from 0"),
        ({"estimator": "median"}, "--estimator does not know 'median'"),
        ({"bandwidth": "-3"}, "--bandwidth does not know '-3'"),
        ({"target": "casia"}, "source and target are the same data set"),
        ({"target": "frcg"}, "there is no data set 'frcg'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_done(trained: Any, options: dict[str, Any], message: str) -> None:
    before = sorted((trained.workspace.root / "runs").iterdir())
    with pytest.raises(UsageError, match=message):
        plan_adapt(replace(ADAPT, **options), trained.workspace)
    assert sorted((trained.workspace.root / "runs").iterdir()) == before


def test_the_source_under_another_name_is_still_the_source(pretrained: Workspace) -> None:
    (pretrained.root / "aligned" / "webface").symlink_to(pretrained.root / "aligned" / "casia")
    with pytest.raises(UsageError, match="are the same data set"):
        plan_adapt(replace(ADAPT, target="webface"), pretrained)


def test_a_layer_that_no_training_reaches_is_refused() -> None:
    resolve_penalty(replace(ADAPT, layers="embedding", backbone_lr_mult=0.0), NETWORKS["facenet"])
    resolve_penalty(replace(ADAPT, layers="pool", backbone_lr_mult=0.1), NETWORKS["facenet"])
    for layers in (None, "pool", "pool:2,embedding"):
        with pytest.raises(UsageError, match="--backbone-lr-mult 0"):
            resolve_penalty(replace(ADAPT, layers=layers, backbone_lr_mult=0.0), NETWORKS["facenet"])


def test_a_target_among_the_sources_identities_is_refused(pretrained: Workspace) -> None:
    identity = next(path for path in (pretrained.root / "aligned" / "casia").iterdir() if path.is_dir())
    with pytest.raises(UsageError, match=rf"{identity.name} lies inside"):
        plan_adapt(replace(ADAPT, target=str(identity)), pretrained)
    with pytest.raises(UsageError, match=r"the source .*casia lies inside the target"):
        plan_adapt(replace(ADAPT, target=str(pretrained.root / "aligned")), pretrained)


def test_without_a_pretraining_it_says_how_to_make_one(workspace: Workspace) -> None:
    with pytest.raises(FacedanError, match="there is no finished pretraining on 'casia'") as caught:
        plan_adapt(ADAPT, workspace)
    assert "facedan pretrain --source casia" in caught.value.fix
    with pytest.raises(FacedanError, match="cannot be read as weights"):
        plan_adapt(replace(ADAPT, init=str(workspace.root / "facedan.toml")), workspace)


def test_a_network_that_maps_all_faces_to_one_point_is_refused(pretrained: Workspace, trained: Any) -> None:
    network, card = load_checkpoint(checkpoint_of(trained.before))
    torch.nn.init.zeros_(network.fc6.weight)
    save_checkpoint(pretrained.root / "dead.safetensors", network, card)
    with pytest.raises(FacedanError, match="median squared distance"):
        run(pretrained, init=str(pretrained.root / "dead.safetensors"))


def test_layers_are_put_in_the_networks_order_with_their_weights() -> None:
    assert list(parse_layers("fc7, fc6", ("fc6", "fc7")).items()) == [("fc6", 1), ("fc7", 1)]
    assert list(parse_layers("fc7:2,fc6 : 0.5", ("fc6", "fc7")).items()) == [("fc6", 0.5), ("fc7", 2)]
    assert parse_layers(None, ("pool", "embedding")) == {"pool": 1, "embedding": 1}
    assert parse_multipliers("4, 0.5,1") == (0.5, 1, 4)


@pytest.mark.parametrize("discrepancy", ["jmmd", "coral", "energy"])
def test_other_discrepancies_take_the_place_of_mmd(pretrained: Workspace, discrepancy: str) -> None:
    last = metrics(run(pretrained, discrepancy=discrepancy).run)[-1]
    named = {key for key in last if key.startswith(("mmd2", "jmmd", "coral", "energy"))}
    assert named == ({"jmmd"} if discrepancy == "jmmd" else {f"{discrepancy}_fc6", f"{discrepancy}_fc7"})
    assert last["loss"] == pytest.approx(last["classification"] + 0.5 * sum(last[key] for key in named), rel=1e-5)
    assert any(key.startswith("gamma_") for key in last) == (discrepancy == "jmmd")


@pytest.mark.usefixtures("drawn_figures")
def test_held_out_images_are_tested_before_and_after_and_never_trained_on(pretrained: Workspace) -> None:
    target = pretrained.root / "aligned" / "frgc"
    for copy in range(10):
        for image in sorted(target.glob("[!c]*.png")):
            shutil.copy(image, target / f"c{copy}-{image.name}")
    source = pretrained.root / "aligned" / "casia"
    for identity in sorted(source.iterdir()):
        if identity.is_dir():
            for copy in range(8):
                shutil.copytree(identity, source / f"{identity.name}-{copy}")
    report = Notes()
    made = run(pretrained, report=report).run
    before, *_, after = metrics(made)
    assert before["step"] == 0
    for entry in (before, after):
        assert entry["two_sample"].keys() == {"fc6", "fc7"}
        assert 0 < entry["two_sample"]["fc7"]["p_value"] <= 1
    assert (made.directory / "domains.png").read_bytes().startswith(b"\x89PNG")
    told = [note for note in report.notes if note.startswith("fc7, held-out images: before MMD² ")]
    assert len(told) == 1
    for entry in (before, after):
        beyond = any(test["p_value"] <= 0.05 for test in entry["two_sample"].values())
        assert ["two-sample test" in doubt for doubt in entry.get("warnings", [])] == [True] * beyond
    doubts = [doubt for entry in (before, after) for doubt in entry.get("warnings", [])]
    assert all(any(said.endswith(doubt) for said in (*report.notes, *report.warnings)) for doubt in doubts)

    kept, held = hold_out(read_dataset(target), 128, labelled=False)
    assert len(held) == len(read_dataset(target)) // 10
    assert not set(kept.paths) & set(held.paths)
    for path in held.paths:  # what is not trained on changes nothing
        (target / path).write_bytes(b"no image")
    other = run(pretrained).run
    assert other.name != made.name
    assert metrics(other)[-1]["mmd2_fc7"] == after["mmd2_fc7"]


def test_a_held_out_image_that_cannot_be_read_stands_for_no_other(pretrained: Workspace, trained: Any) -> None:
    network, _ = load_checkpoint(checkpoint_of(trained.before))
    folder = read_dataset(pretrained.root / "aligned" / "casia")
    labels = np.arange(len(folder)) % 4
    (folder.root / folder.paths[3]).write_bytes(b"no image")
    with ThreadPoolExecutor(1) as pool:
        lazily = HeldOut(network, FaceStore(folder, 72, pool, cache=Cache("none")), labels)
        losses = [lazily.loss(), lazily.loss()]  # before it is known, and after
        at_once = HeldOut(network, FaceStore(folder, 72, pool, cache=Cache("ram")), labels)
        assert losses == [at_once.loss()] * 2
    others = [row for row in range(len(folder)) if row != 3]
    with ThreadPoolExecutor(1) as pool:
        without = HeldOut(network, FaceStore(part_of(folder, others), 72, pool), labels[others])
        assert without.loss() == pytest.approx(losses[0])


def test_a_labelled_sample_has_one_image_an_identity_who_keeps_three() -> None:
    names = tuple(f"p{identity}" for identity in range(60) for _ in range(2 + identity % 5))
    folder = FaceDataset(Path("x"), tuple(f"{name}/{index}.png" for index, name in enumerate(names)), names)
    kept, held = hold_out(folder, 128, labelled=True)
    assert len(held) == len(folder) // 10
    assert len(set(held.names)) == len(held)
    assert set(kept.names) == set(names)
    assert min(kept.names.count(name) for name in held.names) >= 3
    fewer = hold_out(folder, 12, labelled=True)[1]
    assert len(fewer) == 12
    assert set(fewer.paths) < set(held.paths)
    for most in (0, 9):  # too few to say anything
        assert len(hold_out(folder, most, labelled=True)[1]) == 0


def test_bandwidths_are_words_or_positive_numbers() -> None:
    assert parse_bandwidth("frozen") is parse_bandwidth("ema") is parse_bandwidth("batch") is None
    assert parse_bandwidth("6e3") == 6000
    for text in ("0", "inf", "nan", "median", ""):
        with pytest.raises(UsageError, match="--bandwidth does not know"):
            parse_bandwidth(text)
