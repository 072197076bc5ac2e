from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facedan_cli.alignment import plan as align_plan
from facedan_cli.alignment.index import ManifestIndex
from facedan_cli.alignment.plan import Plan
from facedan_cli.alignment.source_image import SourceImage, unreadable
from facedan_cli.config.common import AlignConfig
from facedan_cli.data.manifest import AlignedRecord, ManifestWriter
from facedan_cli.distributed import DistEnv

NAMES = ("a.jpg", "a.png", "A.bmp", "a.png.jpg", "a.png.png", "b.jpg", "a.jpg.jpg", "sub/a.jpg", "a")

STATE = (1_700_000_000_000_000_000, 1 << 62)


def image(path: str, name: str | None = None, size: int = 1) -> SourceImage:
    return SourceImage(path, path if name is None else name, size, 5, Path(path), STATE)


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plan")


def planned(out: Path, found: list[SourceImage], ranks: DistEnv | None = None, chunk: int = 3) -> Plan:
    """A plan for these images."""

    def these(raw: Path, root: Path, out: Path, passed: object = None) -> Iterator[SourceImage]:
        return iter(found)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(align_plan, "source_images", these)
        patched.setattr(align_plan, "CHUNK", chunk)
        plan = Plan(AlignConfig(raw=out, out=out), ManifestIndex(out / "aligned.jsonl"), ranks or DistEnv())
        listed = list(plan.jobs())
    plan.jobs = lambda: iter(listed)  # type: ignore[method-assign]  # the patches are gone
    return plan


def names(plan: Plan) -> dict[str, str]:
    return {job.image.path: job.output for job in plan.jobs()}


def finish(out: Path, plan: Plan, failing: Collection[str] = ()) -> None:
    """Do what is planned, without any image."""
    with ManifestWriter(out / "aligned.jsonl") as writer:
        for job in plan.jobs():
            failed = job.image.path in failing or not job.output
            if not failed:
                (out / job.output).parent.mkdir(parents=True, exist_ok=True)
                (out / job.output).write_bytes(b"face")
            facts = {"status": "failed", "reason": "no"} if failed else {"status": "aligned", "output": job.output}
            one = job.image
            facts |= dict(zip(("changed", "inode"), one.state or (), strict=False))
            writer.append(
                [AlignedRecord(path=one.path, bytes=one.size, modified=one.modified, template="lfw", size=9, **facts)]
            )


def test_each_image_has_the_plainest_name_that_is_free(place: Path) -> None:
    found = [image(name) for name in ("a.jpg", "a.png", "a.webp", "b.PGM", "c")]
    assert names(planned(place, found)) == {
        "a.jpg": "a.jpg",
        "a.png": "a.png.jpg",
        "a.webp": "a.webp.jpg",
        "b.PGM": "b.jpg",
        "c": "c.jpg",
    }


def test_shards_may_hold_one_name_several_times(place: Path) -> None:
    found = [image(f"{shard}.tar/anna/1.jpg", "anna/1.jpg") for shard in range(4)]
    assert list(names(planned(place, found)).values()) == [
        "anna/1.jpg",
        "anna/1.jpg.jpg",
        "anna/1.jpg.2.jpg",
        "anna/1.jpg.3.jpg",
    ]


@given(st.lists(st.sampled_from(NAMES), unique=True), st.lists(st.sampled_from(NAMES), unique=True), st.data())
def test_names_never_clash_and_once_given_they_stay(
    tmp_path_factory: pytest.TempPathFactory, first: list[str], second: list[str], data: st.DataObject
) -> None:
    out = tmp_path_factory.mktemp("names")
    failing = data.draw(st.sets(st.sampled_from(first))) if first else set()
    plan = planned(out, [image(name) for name in first])
    given_first = names(plan)
    assert list(given_first) == first
    assert len({output.lower() for output in given_first.values()}) == len(first)
    finish(out, plan, failing)
    again = planned(out, [image(name) for name in second])
    earlier = {path: output for path, output in given_first.items() if path in second and path not in failing}
    assert again.total == len(second)
    assert again.already == len(earlier)
    assert {path for path, _ in again.failures} == failing & set(second)
    now = earlier | names(again)
    assert now.keys() == set(second) - failing
    assert len({output.lower() for output in now.values()}) == len(now)


@given(st.lists(st.sampled_from(NAMES)), st.integers(1, 4))
def test_processes_share_the_images_and_agree_on_names(
    tmp_path_factory: pytest.TempPathFactory, listed: list[str], count: int
) -> None:
    out = tmp_path_factory.mktemp("shares")
    found = [image(name) for name in listed]
    alone = planned(out, found)
    shares = [planned(out, found, DistEnv(rank, count)) for rank in range(count)]
    together = [pair for share in shares for pair in names(share).items()]
    assert len(together) == alone.total == sum(share.total for share in shares) == len(set(listed))
    assert dict(together) == names(alone)


def test_an_image_listed_twice_is_taken_once(place: Path) -> None:
    found = [image(name) for name in ("a.jpg", "b.jpg", "a.jpg", "a.png", "a.jpg")]
    plan = planned(place, found, chunk=2)
    assert names(plan) == {"a.jpg": "a.jpg", "b.jpg": "b.jpg", "a.png": "a.png.jpg"}
    assert len(list(plan.jobs())) == plan.total == 3
    finish(place, plan)
    assert (planned(place, found).total, planned(place, found).already) == (3, 3)


def test_what_cannot_be_read_has_no_name(place: Path) -> None:
    found = [unreadable("x.tar", "damaged", 7, 5), image("x.jpg"), unreadable("x.tar/../y.jpg", "leads out")]
    plan = planned(place, found)
    assert names(plan) == {"x.tar": "", "x.jpg": "x.jpg", "x.tar/../y.jpg": ""}
    finish(place, plan)
    again = planned(place, found)
    assert sorted(again.failures) == [("x.tar", "no"), ("x.tar/../y.jpg", "no")]
    assert names(again) == {}


def test_a_replaced_image_and_a_removed_face_are_done_again(place: Path) -> None:
    finish(place, planned(place, [image("a.jpg"), image("a.png"), image("b.jpg")]))
    (place / "a.png.jpg").unlink()
    found = [image("a.jpg", size=2), image("a.png"), image("b.jpg")]
    again = planned(place, found)
    assert names(again) == {"a.jpg": "a.jpg", "a.png": "a.png.jpg"}
    assert again.already == 1


def test_a_face_whose_image_is_gone_gives_way(place: Path) -> None:
    finish(place, planned(place, [image("a.png")]))
    again = planned(place, [image("a.jpg")])
    assert names(again) == {"a.jpg": "a.jpg"}
    finish(place, again)
    both = planned(place, [image("a.jpg"), image("a.png")])
    assert names(both) == {"a.png": "a.png.jpg"}  # its own face was overwritten
