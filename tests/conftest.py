from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: tiny networks gain nothing from more

import pytest
from hypothesis import HealthCheck, settings
from matplotlib.figure import Figure
from tiny import ADAPT, PRETRAIN, make_workspace, savings

from facedan_cli.evaluation import report
from facedan_cli.training import session
from facedan_cli.workspace import Workspace

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

# Where the suite's parent ignores them (nohup, `&` of a shell without job control), so would everything that it starts:
# a process that is started gets the default in place of a handler.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, lambda *_: None)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real faces and protocol lists, kept beside the checkout; tests that need them skip where they are missing.

    With FACEDAN_REQUIRE_SHARED set they fail instead: where the data should be, nothing passes by being skipped.
    """
    if not SHARED_DATA.is_dir():
        missing = pytest.fail if os.environ.get("FACEDAN_REQUIRE_SHARED") else pytest.skip
        missing("the research data ../shared/data is not beside this checkout")
    return SHARED_DATA


SAVE, LAY_OUT = Figure.savefig, Figure.draw_without_rendering


@pytest.fixture(scope="session", autouse=True)
def _savings() -> Iterator[None]:
    with savings():
        yield


@pytest.fixture
def drawn_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn all the same, for tests that look at them."""
    monkeypatch.setattr(Figure, "savefig", SAVE)
    monkeypatch.setattr(Figure, "draw_without_rendering", LAY_OUT)


@pytest.fixture(scope="module")
def _no_figures() -> Iterator[None]:
    """Neither figures nor pages are made, for modules that look at values alone."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(report, "draw", lambda _: {})
        patched.setattr(session, "draw_curves", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def one_core() -> Iterator[None]:
    """PyTorch has one thread, as in each worker."""
    import torch

    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(usual)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with data and no runs; to be copied, not changed."""
    root = tmp_path_factory.mktemp("drawn")
    make_workspace(root)
    return root


@pytest.fixture
def workspace(drawn: Path, tmp_path: Path) -> Workspace:
    """A fresh workspace with data and no runs."""
    return Workspace.open(shutil.copytree(drawn, tmp_path / "workspace"))


@dataclass(frozen=True)
class Trained:
    """A workspace with finished runs, by what they are."""

    workspace: Workspace
    before: Path
    control: Path
    dan_s7: Path
    dan_m67: Path


@pytest.fixture(scope="session")
def trained(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A workspace with a pretraining and, in this order, three adaptations; tests may add to it."""
    from facedan_cli.training.adapt import adapt, plan_adapt
    from facedan_cli.training.pretrain import plan_pretrain, pretrain

    workspace = Workspace.open(shutil.copytree(drawn, tmp_path_factory.mktemp("trained") / "workspace"))
    before = pretrain(plan_pretrain(PRETRAIN, workspace))
    choices = (replace(ADAPT, lambda_=0.0), replace(ADAPT, kernels=1, layers="fc7"), ADAPT)
    after = [adapt(plan_adapt(choice, workspace)) for choice in choices]
    return Trained(workspace, before.run.directory, *(result.run.directory for result in after))


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def facedan(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs facedan in this process as the shell would: facedan("embed", "gbu", "--json")."""
    from facedan_cli.cli.app import main

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["facedan", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        assert code is None or isinstance(code, int)
        return Outcome(code or 0, *capsys.readouterr())

    return run
