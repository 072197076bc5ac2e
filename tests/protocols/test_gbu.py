from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from subject_intervals import vr_interval

from facedan_cli.errors import FacedanError
from facedan_cli.metrics.roc import verification_rate
from facedan_cli.protocols.gbu import PARTITIONS, read_gbu, sigset_name
from facedan_cli.protocols.sigset import Record, read_sigset, stem, write_sigset


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A protocol of GBU's shape: in each partition two subjects, with two target images and one query image each."""
    for partition in PARTITIONS:
        for side, images in (("Target", 2), ("Query", 1)):
            records = [Record(who, f"{side}/{partition}_{who}{i}_{side}.jpg") for i in range(images) for who in "ba"]
            write_sigset(tmp_path / sigset_name(partition, side), records)
    return tmp_path


def test_a_smaller_set_of_the_same_shape_is_read(small: Path) -> None:
    partitions = read_gbu(small)
    assert list(partitions) == ["Good", "Bad", "Ugly"]
    bad = partitions["Bad"]
    assert [record.subject for record in bad.target] == ["b", "a", "b", "a"]
    assert [record.file_name for record in bad.query] == ["Query/Bad_b0_Query.jpg", "Query/Bad_a0_Query.jpg"]
    query, target = bad.subjects()
    assert (query.tolist(), target.tolist()) == ([1, 0], [1, 0, 1, 0])
    assert bad.genuine_mask().tolist() == [[True, False, True, False], [False, True, False, True]]


def test_the_case_of_the_file_names_does_not_matter(small: Path) -> None:
    expected = read_gbu(small)
    for path in list(small.iterdir()):
        path.rename(path.with_name(path.name.upper()))
    assert read_gbu(small) == expected


def test_missing_lists_are_named(small: Path) -> None:
    (small / "GBU_Ugly_Query.xml").unlink()
    with pytest.raises(FacedanError, match=r"GBU_Ugly_Query\.xml not found") as error:
        read_gbu(small)
    assert "NIST" in error.value.fix
    with pytest.raises(FacedanError, match=r"GBU_Good_Target\.xml, .*GBU_Ugly_Query\.xml"):
        read_gbu(small / "nowhere")


def test_an_image_in_both_sets_is_refused(small: Path) -> None:
    path = small / sigset_name("Bad", "Query")
    write_sigset(path, [Record("a", "elsewhere/BAD_A0_target.png")])
    with pytest.raises(FacedanError, match=r"BAD_A0_target\.png .* Bad"):
        read_gbu(small)


def test_two_images_of_one_base_name_are_refused(small: Path) -> None:
    write_sigset(small / sigset_name("Good", "Target"), [Record("a", "x/1.jpg"), Record("b", "y/1.png")])
    with pytest.raises(FacedanError, match=re.escape("x/1.jpg and y/1.png")):
        read_gbu(small)


@pytest.mark.parametrize("name", PARTITIONS)
def test_counts_of_the_real_lists(shared_data: Path, name: str) -> None:
    partition = read_gbu(shared_data / "gbu")[name]
    assert len(partition.target) == len(partition.query) == 1085
    query, target = partition.subjects()
    assert set(query) == set(target) == set(range(437))
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(437, 32))
    query_embeddings, target_embeddings = (
        vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        for vectors in (centres[subject] + 1.5 * rng.normal(size=(1085, 32)) for subject in (query, target))
    )
    scores = query_embeddings @ target_embeddings.T
    mask = partition.genuine_mask()
    point = verification_rate(scores[mask], scores[~mask], "0.001")
    assert (point.genuine, point.impostor, point.budget, point.false_accepts) == (3297, 1_173_928, 1173, 1173)
    a, b = np.broadcast_arrays(query[:, None], target[None, :])
    interval = vr_interval(scores[mask], a[mask], scores[~mask], a[~mask], b[~mask], fars=["0.001"], replicates=20)
    low, high = interval["0.001"]
    assert low < point.vr < high


def test_training_sets_of_the_real_lists(shared_data: Path) -> None:
    sets = {
        name: read_sigset(shared_data / "gbu" / f"GBU_Training_Uncontrolled{name}.xml")
        for name in ("x1", "x2", "x4", "x8")
    }
    assert {name: len(records) for name, records in sets.items()} == {"x1": 345, "x2": 673, "x4": 1126, "x8": 1766}
    images = {name: {stem(record.file_name) for record in records} for name, records in sets.items()}
    assert not images["x1"] <= images["x8"]
