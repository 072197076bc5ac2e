"""Time and memory of a data set's fingerprint, by the content of its files.

    python benchmarks/fingerprint.py [--images 1000000] [--bytes 4000] [--place DIRECTORY] [--json] [--smoke]

It writes the files in folders of a hundred. Then it measures these steps, each in a process of its own: the walk alone;
the fingerprint by names and sizes, as in earlier versions; the first fingerprint, which reads all files; that of the
unchanged tree; the same after a move; that of a copy of its first hundredth; and one that reads everything, as on a
network file system. Memory is the peak of the process. `--smoke` uses few files.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from facedan_cli.data import contents
from facedan_cli.data.contents import Contents
from facedan_cli.data.dataset import FaceDataset, read_dataset

A_FOLDER = 100
SMOKE = 300


def write_tree(root: Path, images: int, size: int) -> None:
    """Write different files in folders of identities."""
    for identity in range(-(-images // A_FOLDER)):
        folder = root / f"{identity:06d}"
        folder.mkdir(parents=True)
        for number in range(identity * A_FOLDER, min(images, (identity + 1) * A_FOLDER)):
            (folder / f"{number:08d}.jpg").write_bytes(f"{number:020d}".encode() * (size // 20))


def work(how: str, root: Path, workspace: Path) -> str:
    """Run one step; returns the fingerprint, or "" for the walk alone."""
    folder = read_dataset(root)
    if how == "walk":
        return ""
    if how == "sizes":
        return folder.fingerprint_by_size
    if how == "everything":
        return FaceDataset(folder.root, folder.paths, folder.names, contents=Contents()).fingerprint
    folder = folder.remembered_in(workspace)
    found = folder.fingerprint
    folder.contents.keep()
    return found


def measured(how: str, root: Path, workspace: Path) -> dict[str, float | str]:
    """Run one step in a process of its own."""
    command = [sys.executable, __file__, "--step", how, str(root), str(workspace)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def measure(images: int, size: int, place: Path) -> dict[str, dict[str, float | str]]:
    """Run all steps on a new tree, and check each fingerprint."""
    root, workspace = place / "faces", place / "workspace"
    write_tree(root, images, size)
    time.sleep(contents.SETTLED_NS / 1e9)  # younger files are not relied upon
    found = {how: measured(how, root, workspace) for how in ("walk", "sizes", "first", "again")}
    moved = root.rename(place / "elsewhere")
    found["moved"] = measured("moved", moved, workspace)
    found["everything"] = measured("everything", moved, workspace)
    part = place / "part"
    for folder in sorted(moved.iterdir())[: max(1, images // A_FOLDER // 100)]:
        shutil.copytree(folder, part / folder.name)
    found["copied hundredth"] = measured("copied", part, workspace)
    if len({str(found[how]["fingerprint"]) for how in ("first", "again", "moved", "everything")}) != 1:
        raise SystemExit("one tree has several fingerprints")
    found["index"] = {"megabytes": sum(path.stat().st_size for path in (workspace / "cache").iterdir()) / 1e6}
    return found


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["--step"]:
        how, root, workspace = sys.argv[2:]
        start = time.perf_counter()
        fingerprint = work(how, Path(root), Path(workspace))
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(json.dumps({"seconds": seconds, "megabytes": peak, "fingerprint": fingerprint}))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--bytes", type=int, default=4000, help="of each file")
    parser.add_argument("--place", type=Path, help="a directory for the files; by default that for temporary ones")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--smoke", action="store_true", help="few files: whether it runs")
    options = parser.parse_args()
    images = SMOKE if options.smoke else options.images
    with tempfile.TemporaryDirectory(dir=options.place) as place:
        found = measure(images, options.bytes, Path(place))
    if options.json:
        print(json.dumps({"images": images, "bytes": options.bytes, "steps": found}))
        return
    print(f"{images} files of {options.bytes} bytes")
    for how, figures in found.items():
        seconds = f"{figures['seconds']:8.1f} s" if "seconds" in figures else " " * 10
        print(f"{how:18} {seconds}  {figures['megabytes']:6.0f} MB")


if __name__ == "__main__":
    main()
