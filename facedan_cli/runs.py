"""Run directories: named by a hash of configuration and inputs, locked while running, with a record to repeat them."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from facedan_cli.config.common import as_toml
from facedan_cli.errors import FacedanError, Interrupted, did_you_mean
from facedan_cli.json_files import read_entries, read_object, tell_odd
from facedan_cli.outputs import is_intact, record_of
from facedan_cli.workspace import Workspace, locked, sweep, write_json, write_text

COMPLETE = "complete"
HUB_WEIGHTS = "model.safetensors"
"""The weights in a folder for the Hugging Face Hub, which `export` writes."""
_PACKAGES = ("facedan", "torch", "torchvision", "facenet-pytorch", "opencv-python", "numpy", "safetensors")


@dataclass(frozen=True)
class Run:
    """A run of a stage: its directory, and what determines it.

    Args:
        directory: runs/<stage>-<datasets>-<hash8> in the workspace.
        stage: "pretrain" or "adapt".
        config: the resolved configuration, by option.
        identity: the SHA-256 of configuration and inputs; its first eight digits end the directory's name.
        inputs: what the run reads, with digests.
        remark: a note on the reuse of an earlier version's run; "" without one.
        warning: a warning about the reuse; "" without one.
    """

    directory: Path
    stage: str
    config: Mapping[str, Any]
    identity: str
    inputs: Mapping[str, Any]
    remark: str = ""
    warning: str = ""

    @property
    def name(self) -> str:
        """The directory's name."""
        return self.directory.name

    @property
    def checkpoint(self) -> Path:
        """The checkpoint of the trained network."""
        return checkpoint_of(self.directory)

    @property
    def state(self) -> Path:
        """The state that an interrupted run resumes from."""
        return self.directory / "checkpoints" / "state.safetensors"

    @property
    def log(self) -> Path:
        """The file of metrics, with a JSON object in each line."""
        return self.directory / "metrics.jsonl"

    @property
    def set_aside(self) -> Path | None:
        """The list of images that could not be used; None without one."""
        path = self.directory / "set-aside.tsv"
        return path if path.is_file() else None

    @property
    def last_metrics(self) -> dict[str, Any]:
        """The last whole line of the log."""
        return next(reversed(read_entries(self.log, steps=False)), {})

    @property
    def record(self) -> dict[str, Any]:
        """The present run.json; empty without one."""
        return read_record(self.directory)

    @property
    def finished(self) -> bool:
        """Whether the run is complete and its checkpoint unchanged."""
        record = self.record
        return record.get("identity") == self.identity and is_finished(self.directory, record)

    @property
    def damaged(self) -> bool:
        """Whether the run is complete and its checkpoint has changed."""
        record = self.record
        complete = record.get("identity") == self.identity and record.get("status") == COMPLETE
        return complete and not is_finished(self.directory, record)


@contextmanager
def running(run: Run, *, force: bool, device: str) -> Iterator[None]:
    """Lock the run and keep its run.json up to date while the block runs.

    Raises:
        FacedanError: another process has locked it.
    """
    with locked(run.directory, f"the run {run.name}"):
        if force:
            for path in (run.directory / "checkpoints", run.log, run.directory / "set-aside.tsv"):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        run.checkpoint.parent.mkdir(exist_ok=True)
        for leftover in run.checkpoint.parent.glob(".*"):  # files of a process that was killed while writing
            leftover.unlink()
        started = _now()
        record = {
            "run": run.name,
            "stage": run.stage,
            "status": "running",
            "identity": run.identity,
            "config": dict(run.config),
            "inputs": dict(run.inputs),
            "device": device,
            "first_start": run.record.get("first_start", started) if not force else started,
            "start": started,
        }
        record |= provenance()
        write_text(run.directory / "config.toml", as_toml(run.stage, run.config))
        write_json(run.directory / "run.json", record)
        try:
            yield
        except BaseException as error:
            stopped = isinstance(error, Interrupted | KeyboardInterrupt)
            reason = {"status": "interrupted" if stopped else "failed", "reason": str(error), "end": _now()}
            write_json(run.directory / "run.json", record | reason)
            raise
        made = record_of(run.directory, [run.checkpoint.relative_to(run.directory).as_posix()])
        write_json(run.directory / "run.json", record | {"status": COMPLETE, "end": _now()} | made)
        run.state.unlink(missing_ok=True)  # last: until here an interrupted run resumes from it


def tidy(run: Run) -> None:
    """Remove the state and temporary files that a process killed at the end left in a finished run."""
    with suppress(OSError):
        run.state.unlink(missing_ok=True)
    for directory in (run.directory, run.checkpoint.parent):
        sweep(directory)


def checkpoint_of(directory: Path) -> Path:
    """The network of a run directory."""
    return directory / "checkpoints" / "model.safetensors"


def read_record(directory: Path) -> dict[str, Any]:
    """The run.json of a run directory; empty if it is missing or damaged."""
    try:
        record = read_object(directory / "run.json")
        _check_record(record)
    except OSError:
        return {}
    except ValueError as error:
        tell_odd(directory / "run.json", error)
        return {}
    return record


def _check_record(record: Mapping[str, Any]) -> None:
    """Raise an error for a run.json whose values have other types than facedan writes.

    Raises:
        ValueError: naming the key.
    """
    for key in ("stage", "status", "identity", "first_start", "end"):
        if not isinstance(record.get(key, ""), str):
            raise ValueError(f"'{key}' is no text")
    inputs, config = record.get("inputs", {}), record.get("config", {})
    if not isinstance(config, dict):
        raise ValueError("'config' is no object")
    if not isinstance(inputs, dict) or not all(isinstance(facts, dict) for facts in inputs.values()):
        raise ValueError("'inputs' are no objects")
    if not all(isinstance(facts.get(key, ""), str) for facts in inputs.values() for key in ("name", "root")):
        raise ValueError("the name or root of an input is no text")


def is_finished(directory: Path, record: Mapping[str, Any]) -> bool:
    """Whether a run is complete and its checkpoint unchanged.

    The file is read only where its size or times differ, as those of a copy do.

    Args:
        directory: directory of the run.
        record: its run.json.
    """
    return record.get("status") == COMPLETE and is_intact(directory, checkpoint_of(directory), record)


def newest_run(
    workspace: Workspace,
    stage: str,
    source: str | Callable[[Mapping[str, Any]], bool] | None = None,
    models: Callable[[str], bool] = lambda model: True,
) -> Path | None:
    """The finished run of a stage that ended last; None without one.

    Args:
        workspace: workspace of the runs.
        stage: "pretrain" or "adapt".
        source: only runs on the data set of this name, or whose records are accepted.
        models: whether runs of a model count.
    """
    found = []
    for directory in sorted((workspace.root / "runs").glob(f"{stage}-*")):
        record = read_record(directory)
        if record.get("status") != COMPLETE:
            continue
        wanted = models(str(record.get("config", {}).get("model", "")))
        if callable(source):
            wanted = wanted and source(record)
        elif source is not None:
            wanted &= record.get("inputs", {}).get("source", {}).get("name") == source
        if wanted:
            found.append((record.get("end", ""), directory))
    newest_first = (directory for _, directory in sorted(found, reverse=True))
    return next((directory for directory in newest_first if is_finished(directory, read_record(directory))), None)


def find_checkpoint(workspace: Workspace, name: str) -> Path:
    """Find the checkpoint of a path, a run directory or the name of a run in this workspace.

    Raises:
        FacedanError: there is none, the run is not finished, or its checkpoint is damaged.
    """
    for directory in (Path(name), workspace.root / "runs" / name):
        if directory.is_dir():
            if checkpoint_of(directory).is_file():
                return _undamaged(checkpoint_of(directory))
            if (directory / HUB_WEIGHTS).is_file():
                return directory / HUB_WEIGHTS
            status = read_record(directory).get("status", "not a run")
            raise FacedanError(f"{directory} has no finished model ({status})", "let the run finish, or name another")
    if Path(name).is_file():
        return _undamaged(Path(name))
    runs = workspace.root / "runs"
    known = [entry.name for entry in runs.iterdir() if checkpoint_of(entry).is_file()] if runs.is_dir() else []
    raise FacedanError(f"there is no model '{name}'", did_you_mean(name, known, of="finished runs in this workspace"))


def _undamaged(checkpoint: Path) -> Path:
    """The checkpoint, after a check that it is what its run wrote, if it lies in one.

    Raises:
        FacedanError: it is empty, or differs from the one that the run wrote.
    """
    directory = checkpoint.absolute().parent.parent
    if not checkpoint.stat().st_size and not (directory / "run.json").exists():
        raise FacedanError(f"{checkpoint} is empty", "fetch the file again, or name another")
    if is_intact(directory, checkpoint.absolute(), read_record(directory)):
        return checkpoint
    raise FacedanError(
        f"{checkpoint} is damaged: it is not what its run wrote",
        f"give the command in {directory / 'run.json'} again: the run is then made anew",
    )


def provenance() -> dict[str, Any]:
    """The provenance of a result: command line, versions of packages and code, machine."""
    return {
        "argv": sys.argv,
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES},
        "code": _git_state(),
        "host": socket.gethostname(),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _git_state() -> dict[str, Any]:
    """The commit of this code and whether it is modified; empty outside a checkout."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", here, *arguments], capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    # An installed copy may lie inside another checkout: git must track this file.
    if not git("ls-files", "--error-unmatch", Path(__file__).name):
        return {}
    return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain", "--", "."))}
