"""Readers of JSON files of earlier runs; a damaged file is skipped with a warning."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

_MOST_BYTES = 64 << 20
"""Largest file of one JSON object; facedan writes no larger one."""

_NUMBERS = ("loss", "classification", "accuracy", "lr", "rank_", "cosine_", "norm_")
"""Prefixes of the keys whose values must be numbers."""

_told: set[Path] = set()


def parse_object(text: str | bytes, *, constants: Callable[[str], object] | None = None) -> dict[str, Any]:
    """The object of a JSON text.

    Args:
        text: the text; as bytes in UTF-8.
        constants: conversion of NaN and infinities, `parse_constant` of `json.loads`.

    Raises:
        ValueError: it is no JSON, another value, or nested too deeply.
    """
    try:
        value = json.loads(text, parse_constant=constants)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    return value


def read_object(path: Path) -> dict[str, Any]:
    """The object in a file of JSON.

    Raises:
        ValueError: it holds something else.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ValueError(f"it is larger than {_MOST_BYTES >> 20} MiB")
    return parse_object(content)


def read_entries(log: Path, *, steps: bool = True) -> list[dict[str, Any]]:
    """The entries of metrics.jsonl; empty without the file.

    Lines that are none are passed over, and told of where no kill explains them: that cuts the last one short.

    Args:
        log: the file.
        steps: whether an entry must have its `step`. PCANet, which is learnt in no steps, has one entry without.
    """
    entries, odd = [], []
    try:
        lines = log.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    for number, line in enumerate(lines, start=1):
        try:
            entry = parse_object(line)
        except ValueError:
            entry = {}
        if _is_entry(entry, steps=steps):
            entries.append(entry)
        elif line.strip() and number < len(lines):
            odd.append(number)
    if odd:
        tell_odd(log, f"line {odd[0]} is no entry" + (f", nor are {len(odd) - 1} others" if len(odd) > 1 else ""))
    return entries


def tell_odd(path: Path, why: object) -> None:
    """Warn, once, about a damaged file, without which the work goes on."""
    if path not in _told:
        _told.add(path)
        logging.getLogger("facedan").warning("%s is damaged and passed over: %s", path, why)


def _is_entry(entry: dict[str, Any], *, steps: bool) -> bool:
    if not entry:
        return False
    numbers = [value for key, value in entry.items() if key.startswith(_NUMBERS)]
    step = entry.get("step") if steps else entry.get("step", 0)
    return type(step) is int and all(type(value) in (int, float) for value in numbers)
