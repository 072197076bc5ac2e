"""Planning of a run from configuration and inputs, including runs of moved data sets and earlier versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from glob import escape
from types import MappingProxyType
from typing import Any, Protocol

from facedan_cli.config.common import hashed_in_0_1
from facedan_cli.runs import Run, read_record
from facedan_cli.workspace import Workspace, digest


class Images(Protocol):
    """Facts by which runs of version 0.1.0 are recognised."""

    @property
    def fingerprint_by_size(self) -> str:
        """The fingerprint of version 0.1.0."""

    def newest_times(self) -> tuple[float, float]:
        """The newest mtime and the newest ctime of the images, seconds since 1970."""


def plan_run(
    workspace: Workspace,
    stage: str,
    datasets: Sequence[str],
    *,
    config: Mapping[str, Any],
    hashed_options: Mapping[str, Any],
    inputs: Mapping[str, Mapping[str, Any]],
    images: Mapping[str, Images] = MappingProxyType({}),
) -> Run:
    """The run of a configuration and its inputs, without writing anything.

    Args:
        workspace: workspace of the run.
        stage: the command.
        datasets: the names of its data sets, for the directory's name.
        config: the whole resolved configuration.
        hashed_options: the values that determine the result, and the `method` of the training, if any.
        inputs: inputs by role; their `contents` and `sha256` determine the run, names and paths do not.
        images: data sets among the inputs, by role, by which runs of version 0.1.0 are found.
    """
    known = {
        role: {key: facts[key] for key in ("contents", "sha256") if key in facts} for role, facts in inputs.items()
    }
    identity = digest({"stage": stage, "config": hashed_options, "inputs": known})
    run = Run(workspace.run_directory(stage, datasets, identity), stage, config, identity, inputs)
    if run.record.get("identity", identity) != identity:  # another run whose digest starts with the same digits
        run = replace(run, directory=workspace.run_directory(stage, datasets, identity, digits=16))
    if run.directory.is_dir():
        return run
    for directory in sorted((workspace.root / "runs").glob(f"{stage}-*-{identity[:8]}")):
        if read_record(directory).get("identity") == identity:  # the data set had another name
            return replace(run, directory=directory)
    return _of_version_0_1(workspace, run, datasets, hashed_options, images)


def _of_version_0_1(
    workspace: Workspace,
    run: Run,
    datasets: Sequence[str],
    hashed_options: Mapping[str, Any],
    images: Mapping[str, Images],
) -> Run:
    """The run of version 0.1.0 with these settings if it can be reused; else this run, with a remark on the other.

    That version knew images by name and size, and other options. Its run can be reused if no image was written since it
    began, judged by ctimes or, in a copied or unpacked workspace, by mtimes with a warning. If the `method` of the
    training has changed, only a finished run can be reused.
    """
    beside = [
        read_record(path) for path in (workspace.root / "runs").glob("-".join([run.stage, *map(escape, datasets), "*"]))
    ]
    if not any("fingerprint" in facts for record in beside for facts in _inputs_of(record).values()):
        return run
    known = {
        role: {key: facts[key] for key in ("name", "sha256") if key in facts}
        | ({"fingerprint": images[role].fingerprint_by_size} if role in images else {})
        for role, facts in run.inputs.items()
    }
    identity = digest({"stage": run.stage, "config": hashed_in_0_1(hashed_options), "inputs": known})
    directory = workspace.run_directory(run.stage, datasets, identity)
    record = read_record(directory)
    if record.get("identity") != identity:
        return run
    earlier, name = replace(run, directory=directory, identity=identity), directory.name
    if "method" in hashed_options and not earlier.finished:
        return replace(run, remark=f"{name} is of an earlier version and not finished: the training begins again")
    times = [of.newest_times() for of in images.values()]
    written, changed = (max(column) for column in zip(*times, strict=True))
    began, alone = _began(record), f"{name} knows its images by name and size alone"
    if changed < began:
        return replace(earlier, remark=f"{alone}; none of them has been written since it began")
    if written < began:
        return replace(
            earlier,
            warning=f"{alone}: they were copied or moved since it began, and their times of writing are older, but "
            "whether they hold what it was trained on could not be checked; --force trains again",
        )
    return replace(run, remark=f"{alone}, and some were written since it began: it is not reused")


def _inputs_of(record: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    inputs = record.get("inputs")
    return (
        {role: facts for role, facts in inputs.items() if isinstance(facts, dict)} if isinstance(inputs, dict) else {}
    )


def _began(record: Mapping[str, Any]) -> float:
    """The time of a run's first start, seconds since 1970; 0 if its record has none."""
    try:
        return datetime.fromisoformat(record["first_start"]).timestamp()
    except (LookupError, TypeError, ValueError):
        return 0.0
