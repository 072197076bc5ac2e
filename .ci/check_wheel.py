"""Check that a wheel has all that should be in it, and nothing else."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def expected(distribution: str) -> set[str]:
    """Every file of the wheel of this checkout; `distribution` is name-version."""
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "facedan_cli").rglob("*.py")}
    share = f"{distribution}.data/data/share"
    completions = {
        f"{share}/bash-completion/completions/facedan",
        f"{share}/zsh/site-functions/_facedan",
        f"{share}/fish/vendor_completions.d/facedan.fish",
    }
    pages = {f"{share}/man/man1/{path.name}" for path in (ROOT / "man").glob("*.1")}
    about = ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")
    templates = {path.relative_to(ROOT).as_posix() for path in (ROOT / "facedan_cli").rglob("*.html")}
    return (
        modules
        | templates
        | {"facedan_cli/py.typed"}
        | completions
        | pages
        | {f"{distribution}.dist-info/{name}" for name in about}
    )


def main(path: Path) -> None:
    """Compare, and exit with what is missing and what is too much."""
    with zipfile.ZipFile(path) as wheel:
        found = {name for name in wheel.namelist() if not name.endswith("/")}
        distribution = "-".join(path.name.split("-")[:2])
        wanted = expected(distribution)
        if found != wanted:
            sys.exit(f"{path.name}: missing {sorted(wanted - found)}, unexpected {sorted(found - wanted)}")
        scripts = wheel.read(f"{distribution}.dist-info/entry_points.txt").decode()
        if "facedan = facedan_cli.cli.app:main" not in scripts.splitlines():
            sys.exit(f"{path.name}: no console script facedan, but {scripts!r}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
