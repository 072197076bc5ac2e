"""Write completions/, man/ and docs/architecture.md from the code; `--check` only names what is out of step."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "facedan_cli"
sys.path.insert(0, str(ROOT))

import architecture  # noqa: E402
import manpages  # noqa: E402
from commands import facedan  # noqa: E402

import completions  # noqa: E402

_ARCHITECTURE = "docs/architecture.md"
"""The one file of its folder that is generated."""


def generated() -> dict[str, str]:
    """Each generated file's text by its path in the repository."""
    root = facedan()
    pages = {f"man/{'-'.join(page.words)}.1": manpages.page(page, root) for page in (root, *root.commands)}
    return {
        "completions/facedan.bash": completions.bash(root),
        "completions/_facedan": completions.zsh(root),
        "completions/facedan.fish": completions.fish(root),
        _ARCHITECTURE: architecture.page(PACKAGE),
        **pages,
    }


def out_of_step() -> list[str]:
    """Files that differ from what would be generated, are missing, or should not be there."""
    expected = generated()
    paths = [path for pattern in ("completions/*", "man/*", _ARCHITECTURE) for path in ROOT.glob(pattern)]
    found = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in paths}
    return sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))


def main(arguments: list[str]) -> None:
    """Bring the files into step, or fail where they are not."""
    if arguments not in ([], ["--check"]):
        sys.exit("usage: generate.py [--check]")
    stale = out_of_step()
    if arguments and stale:
        sys.exit(f"out of step with the code: {', '.join(stale)}\nrun: python .ci/generate.py")
    expected = generated()
    for name in stale:
        path = ROOT / name
        if name in expected:
            path.parent.mkdir(exist_ok=True)
            path.write_text(expected[name], encoding="utf-8")
        else:
            path.unlink()


if __name__ == "__main__":
    main(sys.argv[1:])
