"""What a training writes down as it goes on, and what can be seen in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from facedan_cli.adaptation.diagnostics import effective_rank, mean_cosine, mean_norm
from facedan_cli.training.distributed import rank
from facedan_cli.workspace import write_text

LEAST_RANK, LEAST_ANGLE = 0.1, 0.01
"""Features have collapsed where effective rank, or one less mean cosine, is below this share of what it was.

Both are measured against the first line of the log: what is usual differs between networks."""


class Log:
    """metrics.jsonl as it grows; of several processes only the first one writes it.

    Args:
        path: the file.
        start: the steps that are done; lines of later ones are dropped, for they will be done again.
    """

    def __init__(self, path: Path, start: int) -> None:
        self.path = path
        self.warned = False
        kept = _lines_up_to(path, start)
        if rank() == 0:
            write_text(path, "".join(json.dumps(entry) + "\n" for entry in kept))
        self.last: dict[str, Any] = kept[-1] if kept else {}
        self.first: dict[str, Any] = next((entry for entry in kept if entry["step"] > 0), {})

    def write(self, entry: dict[str, Any]) -> None:
        """Add a line."""
        self.last = entry
        if entry["step"] > 0:
            self.first = self.first or entry
        if rank() == 0:
            with self.path.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(entry) + "\n")

    def collapse(self, entry: dict[str, Any]) -> str:
        """A warning, once, where the features of a domain have fallen together; empty where they have not."""
        for key, now in entry.items():
            if self.warned or not key.startswith("rank_"):
                continue
            before, beside = self.first.get(key, now), key.replace("rank_", "cosine_")
            cosine = entry[beside]
            if now < LEAST_RANK * before or 1 - cosine < LEAST_ANGLE * (1 - self.first.get(beside, cosine)):
                self.warned = True
                _, layer, domain = key.split("_")
                return (
                    f"step {entry['step']}: the {layer} features of the {domain} have collapsed (effective rank "
                    f"{before:.1f} at first, {now:.1f} now; mean cosine {cosine:.3f}): lower --lambda or --lr"
                )
        return ""


def shape_of_features(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, float]:
    """How the features of each domain lie: where λ is too high they fall together before results show it."""
    shape = {}
    for domain, features in (("source", source), ("target", target)):
        for layer, rows in features.items():
            shape[f"norm_{layer}_{domain}"] = mean_norm(rows)
            shape[f"rank_{layer}_{domain}"] = effective_rank(rows)
            shape[f"cosine_{layer}_{domain}"] = mean_cosine(rows)
    return shape


def _lines_up_to(log: Path, step: int) -> list[dict[str, Any]]:
    """The lines that stay when an interrupted run goes on: not those of steps that it has to do again."""
    kept = []
    if log.exists():
        for line in log.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:  # the last line of a process that was killed while it wrote
                continue
            if entry["step"] <= step and step > 0:
                kept.append(entry)
    return kept
