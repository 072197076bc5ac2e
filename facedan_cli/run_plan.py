"""Which run a configuration and its inputs make, and where it lies: found again when a data set was moved or copied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from glob import escape
from types import MappingProxyType
from typing import Any, Protocol

from facedan_cli.runs import Run, read_record
from facedan_cli.workspace import Workspace, digest


class Images(Protocol):
    """A data set, as far as runs of earlier versions have to be recognised."""

    @property
    def fingerprint_by_size(self) -> str:
        """By which those versions knew it."""

    def unchanged_since(self, moment: float) -> bool:
        """Whether no image has been written since a moment, seconds since 1970."""


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
    """The run that this configuration and these inputs make; nothing is written yet.

    Args:
        workspace: where it will lie.
        stage: the command.
        datasets: the names of its data sets, for the directory's name.
        config: the resolved configuration, whole.
        determining: those of its values that determine the result.
        inputs: by role, what is read; its `contents` and `sha256` determine the run, names and paths do not.
        images: by role, the data sets among them: with them runs of versions are found that knew them by size.
    """
    known = {
        role: {key: facts[key] for key in ("contents", "sha256") if key in facts} for role, facts in inputs.items()
    }
    identity = digest({"stage": stage, "config": hashed_options, "inputs": known})
    run = Run(workspace.run_directory(stage, datasets, identity), stage, config, identity, inputs)
    if run.record.get("identity", identity) != identity:  # another's, whose digest begins alike
        run = replace(run, directory=workspace.run_directory(stage, datasets, identity, digits=16))
    if run.directory.is_dir():
        return run
    for directory in sorted((workspace.root / "runs").glob(f"{stage}-*-{identity[:8]}")):
        if read_record(directory).get("identity") == identity:  # the data set had another name
            return replace(run, directory=directory)
    earlier = _of_earlier_version(workspace, run, datasets, hashed_options, images)
    return run if earlier is None else earlier


def _of_earlier_version(
    workspace: Workspace,
    run: Run,
    datasets: Sequence[str],
    hashed_options: Mapping[str, Any],
    images: Mapping[str, Images],
) -> Run | None:
    """The run as a version made it that knew images by name and size: the same one if none was written since.

    Where one was, the new run comes back with a remark on the old one; None where there is no old one.
    """
    beside = [
        read_record(path) for path in (workspace.root / "runs").glob("-".join([run.stage, *map(escape, datasets), "*"]))
    ]
    if not any("fingerprint" in facts for record in beside for facts in _inputs_of(record).values()):
        return None
    known = {
        role: {key: facts[key] for key in ("name", "sha256") if key in facts}
        | ({"fingerprint": images[role].fingerprint_by_size} if role in images else {})
        for role, facts in run.inputs.items()
    }
    identity = digest({"stage": run.stage, "config": hashed_options, "inputs": known})
    directory = workspace.run_directory(run.stage, datasets, identity)
    record = read_record(directory)
    if record.get("identity") != identity:
        return None
    alone = f"{directory.name} knows its images by name and size alone"
    if all(of.unchanged_since(_began(record)) for of in images.values()):
        remark = f"{alone}; none of them has been written since it began"
        return replace(run, directory=directory, identity=identity, remark=remark)
    return replace(run, remark=f"{alone}, and some were written or copied since it began: it is not taken for this one")


def _inputs_of(record: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    inputs = record.get("inputs")
    return (
        {role: facts for role, facts in inputs.items() if isinstance(facts, dict)} if isinstance(inputs, dict) else {}
    )


def _began(record: Mapping[str, Any]) -> float:
    """When a run first began, seconds since 1970; 0 where its record does not say."""
    try:
        return datetime.fromisoformat(record["first_start"]).timestamp()
    except (LookupError, TypeError, ValueError):
        return 0.0
