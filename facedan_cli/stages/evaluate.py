"""Measure models by a protocol: GBU, a list of pairs, or the search of probes in a gallery."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facedan_cli.config import EmbedConfig, EvaluateConfig
from facedan_cli.errors import FacedanError, UsageError
from facedan_cli.faces.folder import FaceFolder, read_folder
from facedan_cli.faces.records import FAILED, read_records
from facedan_cli.metrics.roc import parse_far
from facedan_cli.models.weights import Card, read_card
from facedan_cli.protocols.gbu import read_gbu
from facedan_cli.protocols.matching import Match, match_images
from facedan_cli.protocols.pairs import read_pairs
from facedan_cli.report import SILENT, Report
from facedan_cli.stages.embed import embed, find_model
from facedan_cli.stages.measures import (
    Comparisons,
    EvaluateResult,
    Identification,
    Measured,
    Verification,
    identification,
    verification,
    write_results,
)
from facedan_cli.workspace import (
    Dataset,
    Workspace,
    digest,
    find_manifest,
    read_set_aside,
    sha256_file,
    write_set_aside,
)

Figures = dict[str, Verification | Identification]


@dataclass(frozen=True)
class _Faces:
    """A data set's features by one model; images that have none, with the reason."""

    root: Path
    vectors: np.ndarray  # (n, d)
    paths: list[str]
    people: list[str]
    unusable: Mapping[str, str]


def evaluate_gbu(
    config: EvaluateConfig, workspace: Workspace, images: Dataset, protocol: Path, *, report: Report = SILENT
) -> EvaluateResult:
    """Verification on the partitions of GBU (Phillips et al. 2012): every query image with every target image.

    Args:
        config: the models and how they are measured.
        workspace: where features and results lie.
        images: the aligned faces, matched to the lists by base name.
        protocol: the directory of the sigsets.
        report: told of the progress.

    Raises:
        FacedanError: lists or images are missing so that nothing can be measured.
    """
    partitions = read_gbu(protocol)
    absent: dict[str, str] = {}

    def measure(faces: _Faces) -> Figures:
        figures: Figures = {}
        for name, part in partitions.items():
            sides = [[record.file_name for record in side] for side in (part.query, part.target)]
            match = match_images([*sides[0], *sides[1]], faces.paths)
            _note_missing(absent, match, faces)
            query, target = (
                _present(names, subjects, match) for names, subjects in zip(sides, part.subjects(), strict=True)
            )
            compared = _every_pair(faces.vectors, query, target)
            figures[name] = verification(compared, len(match.missing), config, f"partition {name}")
        return figures

    lists = [sha256_file(path) for path in sorted(protocol.glob("*.xml"))]
    return _evaluate("gbu", config, workspace, [images], lambda faces: measure(faces[0]), absent, lists, report)


def evaluate_pairs(
    config: EvaluateConfig, workspace: Workspace, images: Dataset, pairs: Path, *, report: Report = SILENT
) -> EvaluateResult:
    """Verification on a list of pairs, LFW's pairs.txt or three plain columns.

    Args:
        config: the models and how they are measured.
        workspace: where features and results lie.
        images: the aligned faces; folders that name people make the intervals those of people, not of images.
        pairs: the list.
        report: told of the progress.

    Raises:
        FacedanError: the list cannot be read, or too few of its images are there.
    """
    listed = read_pairs(pairs)
    absent: dict[str, str] = {}

    def measure(faces: _Faces) -> Figures:
        match = match_images([name for pair in listed for name in (pair.a, pair.b)], faces.paths)
        _note_missing(absent, match, faces)
        there = [pair for pair in listed if pair.a in match.rows and pair.b in match.rows]
        a = np.array([match.rows[pair.a] for pair in there], np.int64)
        b = np.array([match.rows[pair.b] for pair in there], np.int64)
        same = np.array([pair.same for pair in there], bool)
        scores = np.einsum("nd,nd->n", faces.vectors[a], faces.vectors[b])
        # Whose image it is is known from its folder; an image that lies in none stands for itself.
        person = np.array([name or path for name, path in zip(faces.people, faces.paths, strict=True)])
        apart = ~same & (person[a] != person[b])
        compared = Comparisons(scores[same], person[a[same]], scores[apart], (person[a[apart]], person[b[apart]]))
        if contradictory := int((~same & (person[a] == person[b])).sum()):
            raise FacedanError(
                f"{contradictory} pairs of {pairs} are labelled as different people but lie in one person's folder",
                "correct the list, or lay the images out without folders of people",
            )
        return {"all": verification(compared, len(match.missing), config, str(pairs))}

    lists = [sha256_file(pairs)]
    return _evaluate("pairs", config, workspace, [images], lambda faces: measure(faces[0]), absent, lists, report)


def evaluate_identify(
    config: EvaluateConfig, workspace: Workspace, gallery: Dataset, probe: Dataset, *, report: Report = SILENT
) -> EvaluateResult:
    """Closed-set identification: each probe is searched in the gallery; folders tell who is who.

    Args:
        config: the models and how they are measured.
        workspace: where features and results lie.
        gallery: the aligned faces of known people.
        probe: the aligned faces to be recognised.
        report: told of the progress.

    Raises:
        FacedanError: gallery and probes are one data set, or no probe has a mate in the gallery.
    """
    if gallery.root.resolve() == probe.root.resolve():
        raise UsageError(
            f"gallery and probes are the same data set ({gallery.root}): every probe would find itself",
            "give --probe other images of the people in the gallery",
        )
    absent: dict[str, str] = {}

    def measure(faces: Sequence[_Faces]) -> Figures:
        (known, known_people), (probes, probe_people) = (_of_people(side, absent) for side in faces)
        return {"all": identification(probes @ known.T, probe_people, known_people, len(absent), config)}

    return _evaluate("identify", config, workspace, [gallery, probe], measure, absent, [], report)


def _evaluate(
    protocol: str,
    config: EvaluateConfig,
    workspace: Workspace,
    datasets: Sequence[Dataset],
    measure: Callable[[Sequence[_Faces]], Figures],
    absent: Mapping[str, str],
    lists: Sequence[str],
    report: Report,
) -> EvaluateResult:
    """Embed the data sets by each model, measure, write. `measure` adds what it misses to `absent`."""
    for far in config.far:
        parse_far(far)
    if config.replicates < 0:
        raise UsageError(f"--replicates must be at least 0, not {config.replicates}", "0 gives no intervals")
    folders = [read_folder(dataset.root) for dataset in datasets]
    found = [find_model(workspace, name) for name in config.model or (None,)]
    checkpoints = list({path.resolve(): path for path in found}.values())
    cards = [read_card(checkpoint) for checkpoint in checkpoints]
    measured = []
    for label, card, checkpoint in zip(_labels(cards), cards, checkpoints, strict=True):
        report.note(f"measuring {card.run} as '{label}' ({checkpoint})")
        faces = [
            _embed(config, dataset, folder, checkpoint, workspace, report)
            for dataset, folder in zip(datasets, folders, strict=True)
        ]
        measured.append(Measured(label, card.run, checkpoint, measure(faces)))
    identity = digest(
        {
            "models": [sha256_file(checkpoint) for checkpoint in checkpoints],
            "images": [folder.fingerprint for folder in folders],
            "lists": list(lists),
            "config": [config.far, config.layer, config.flip, config.replicates, config.seed],
        }
    )
    directory = workspace.result_directory(protocol, identity)
    set_aside = write_set_aside(directory / "set-aside.tsv", sorted(absent.items()))
    result = EvaluateResult(protocol, directory, measured, set_aside)
    write_results(result, config)
    return result


def _embed(
    config: EvaluateConfig, dataset: Dataset, folder: FaceFolder, checkpoint: Path, workspace: Workspace, report: Report
) -> _Faces:
    how = EmbedConfig(
        dataset=dataset.name,
        layer=config.layer,
        flip=config.flip,
        batch=config.batch,
        workers=config.workers,
        device=config.device,
        force=config.force,
    )
    embedded = embed(how, folder, checkpoint, workspace, report=report)
    unusable = _failed_to_align(folder.root) | read_set_aside(embedded.set_aside)
    return _Faces(folder.root, *embedded.load(), unusable)


def _failed_to_align(root: Path) -> dict[str, str]:
    """Photographs under a data set that `align` set aside, by their path there, with the reason."""
    manifest = find_manifest(root)
    if manifest is None:
        return {}
    prefix = root.resolve().relative_to(manifest.parent.resolve()).as_posix()
    prefix = "" if prefix == "." else prefix + "/"
    last = {record.path: record for record in read_records(manifest) if record.path.startswith(prefix)}
    return {
        path.removeprefix(prefix): f"not aligned: {record.reason}"
        for path, record in last.items()
        if record.status == FAILED
    }


def _labels(cards: Sequence[Card]) -> list[str]:
    """Names for a table, as the paper has them; models that would share one get their run's hash as well."""
    names = [_label(card) for card in cards]
    counts = Counter(names)
    return [
        name if counts[name] == 1 else f"{name} {card.run.rpartition('-')[2]}"
        for name, card in zip(names, cards, strict=True)
    ]


def _label(card: Card) -> str:
    if card.stage == "pretrain":
        return "source only"
    config = card.config
    if config["lambda"] == 0:
        return "λ = 0"
    kernels = {1: "s", 5: "m"}.get(config["kernels"], f"{config['kernels']}k")
    layers = "".join(layer.removeprefix("fc") for layer in sorted(config["layers"].split(",")))
    strength = "" if config["lambda"] == 0.5 else f" λ={config['lambda']:g}"  # 0.5 is the paper's
    return f"DAN_{kernels}{layers}{strength}"


def _note_missing(absent: dict[str, str], match: Match, faces: _Faces) -> None:
    unusable = match_images(match.missing, list(faces.unusable))
    reasons = list(faces.unusable.values())
    for name in match.missing:
        absent[name] = reasons[unusable.rows[name]] if name in unusable.rows else "not among the images"


def _of_people(faces: _Faces, absent: dict[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """Features and people of the images that lie in folders of people; the others are nobody's and left out."""
    nameless = [path for path, name in zip(faces.paths, faces.people, strict=True) if not name]
    left_out = {**faces.unusable, **dict.fromkeys(nameless, "not in an identity folder")}
    absent.update({str(faces.root / path): reason for path, reason in left_out.items()})
    people = np.array(faces.people)
    return faces.vectors[people != ""], people[people != ""]


def _present(names: Sequence[str], subjects: np.ndarray, match: Match) -> tuple[np.ndarray, np.ndarray]:
    """Rows and subjects of those images that are there."""
    kept = [index for index, name in enumerate(names) if name in match.rows]
    return np.array([match.rows[names[index]] for index in kept], np.int64), subjects[kept]


def _every_pair(
    vectors: np.ndarray, query: tuple[np.ndarray, np.ndarray], target: tuple[np.ndarray, np.ndarray]
) -> Comparisons:
    """Cosine similarity of every query with every target: the features have length one."""
    scores = vectors[query[0]] @ vectors[target[0]].T  # (queries, targets)
    same = np.equal.outer(query[1], target[1])
    first, second = np.nonzero(~same)
    return Comparisons(scores[same], query[1][np.nonzero(same)[0]], scores[~same], (query[1][first], target[1][second]))
