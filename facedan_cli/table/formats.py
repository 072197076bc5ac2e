"""Text of a filled table, in Markdown and LaTeX."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from facedan_cli.config.models import PCANET
from facedan_cli.evaluation.text_tables import DIFFERENT, UNRESOLVED
from facedan_cli.figures.page import Table
from facedan_cli.table.reported import PAPER
from facedan_cli.table.result import CSV_HEADER, Key, PairedDifference, SeedSummary, TableResult
from facedan_cli.workspace import write_csv, write_json, write_text

_NONE = "–"
"""The text of a cell without a value."""

_TEX = {
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "λ": r"$\lambda$",
    "β": r"$\beta$",
    "γ": r"$\gamma$",
    "×": r"$\times$",
    "−": "$-$",
    "–": "--",
    "→": r"$\rightarrow$",
    "†": r"$^\dagger$",
}
_BAND = re.compile(r"DAN_([A-Za-z0-9]+)")
_NEGATIVE = re.compile(r"(?<!\w)-(?=\d)")


def rates_table(result: TableResult) -> Table:
    """The table of rates in per cent, a row for each method, with the paper's rate beside ours if it has one."""
    keys = list(dict.fromkeys(key for row in result.rows for key in row.rates))
    reported = {key for row in result.rows for key in row.paper} & set(keys)
    header = ["method"]
    for key in keys:
        header += [_column(result, key), *(["paper"] if key in reported else [])]
    lines = [(row.name, row.rates, row.paper) for row in result.rows]
    if result.reported is not None and reported:
        lines += [(name, {}, result.reported.rates(name)) for name in result.reported.elsewhere]
    rows = []
    for name, rates, paper in lines:
        cells = [name]
        for key in keys:
            cells += [_rate(rates.get(key)), *([_percent(paper.get(key))] if key in reported else [])]
        rows.append(cells)
    return Table(_title(result), header, rows, list(_notes(result, bool(reported), rows)))


def differences_table(result: TableResult) -> Table | None:
    """The table of the rows' differences to the references, in points; None without differences."""
    if not result.differences:
        return None
    keys = list(dict.fromkeys((one.partition, one.at) for one in result.differences))
    by_pair: dict[tuple[str, str], dict[Key, PairedDifference]] = {}
    for one in result.differences:
        by_pair.setdefault((one.row, one.reference), {})[one.partition, one.at] = one
    names = {row.key: row.name for row in result.rows}
    rows = [
        [f"{names[row]} − {names[reference]}", *(_difference(found[key]) for key in keys)]
        for (row, reference), found in by_pair.items()
    ]
    notes = []
    if any(DIFFERENT in cell for cells in rows for cell in cells):
        each = " of every seed" if len(result.config.seeds) > 1 else ""
        beyond = "its 95 % interval, paired, leaves out 0"
        if all(interval is None for one in result.differences for interval in one.spread.intervals):
            beyond = "McNemar's p is below 0.05"
        notes.append(f"{DIFFERENT} a difference beyond chance, each taken by itself: {beyond}{each}")
    return Table("Differences in points", ["methods", *(_column(result, key) for key in keys)], rows, notes)


def _title(result: TableResult) -> str:
    config = result.config
    fars = set(config.evaluate.far)
    rate = "Rank-1 rate"
    if result.verifies:
        rate = f"Verification rate at FAR {next(iter(fars))}" if len(fars) == 1 else "Verification rate"
    return f"{rate} (%) by {result.protocol}, {config.pretrain.model}, {config.adapt.source} → {config.adapt.target}"


def _column(result: TableResult, key: Key) -> str:
    partition, at = key
    if not result.verifies:
        return "rank 1" if partition == "all" else partition
    if partition == "all":
        return f"VR @ FAR {at}"
    return partition if len(result.config.evaluate.far) == 1 else f"{partition} @ FAR {at}"


def _rate(spread: SeedSummary | None) -> str:
    if spread is None:
        return _NONE
    value = f"{100 * spread.mean:.2f}" + UNRESOLVED * (not spread.resolved)
    return value if spread.bounds is None else f"{value} [{_both(spread, '.1f')}]"


def _difference(one: PairedDifference) -> str:
    spread = one.spread
    value = f"{100 * spread.mean:+.2f}" + DIFFERENT * all(known is True for known in one.distinguishable)
    return value if spread.bounds is None else f"{value} [{_both(spread, '+.1f')}]"


def _both(spread: SeedSummary, form: str) -> str:
    return ", ".join(format(100 * bound, form) for bound in spread.bounds or ())


def _percent(rate: float | None) -> str:
    return _NONE if rate is None else f"{100 * rate:.2f}"


def _notes(result: TableResult, with_paper: bool, rows: Sequence[Sequence[str]]) -> Iterable[str]:
    config, keys = result.config, {row.key for row in result.rows}
    evaluate = config.evaluate
    if len(config.seeds) > 1:
        seeds = ", ".join(map(str, config.seeds))
        yield f"mean over the seeds {seeds} [lowest, highest]; without brackets: the same model for every seed"
    elif evaluate.ci == "bootstrap":
        yield f"seed {config.seeds[0]} [95 % interval, bootstrap over subjects, {evaluate.replicates} replicates]"
    elif evaluate.ci == "wilson":
        yield f"seed {config.seeds[0]} [95 % interval, binomial: too narrow]"
    if any(UNRESOLVED in cell for cells in rows for cell in cells[1:]):
        yield f"{UNRESOLVED} too few impostors for this FAR: not one false accept is allowed"
    if PCANET in keys:
        yield f"PCANet is learnt from the faces of {config.adapt.target}, without labels"
    if "control" in keys:
        yield "λ = 0 is the control, not in the paper: the same steps without the penalty"
    if "fusion" in keys:
        yield (
            "fusion, not in the paper, sums the scores of the DAN rows, z-normalised over all comparisons of a "
            "partition, on which they depend"
        )
    if result.set_aside is not None:
        yield "some images could not be used: rates are of the comparisons that could be made"
    yield from (f"! {warning}" for warning in result.warnings)
    if with_paper and result.reported is not None:
        yield f"paper: {PAPER}, {result.reported.name}: VGG-Face, CASIA-WebFace as the source"
        yield from result.reported.notes


def as_markdown(table: Table) -> str:
    """A table in Markdown, with aligned columns, its title above and its notes below."""
    cells = [[_for_markdown(cell) for cell in row] for row in (table.header, *table.rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(table.header))]

    def line(row: Sequence[str]) -> str:
        padded = [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        return f"| {' | '.join(padded)} |"

    rule = [("-" * widths[0]), *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [f"**{_for_markdown(table.title)}**", "", line(cells[0]), f"| {' | '.join(rule)} |", *map(line, cells[1:])]
    notes = [f"- {_for_markdown(note)}" for note in table.notes]
    return "\n".join([*lines, *(["", *notes] if notes else [])])


def _for_markdown(text: str) -> str:
    return re.sub(r"([\\|*_`<])", r"\\\1", text)


def as_latex(table: Table) -> str:
    """A table as a `tabular` with rules of booktabs; title and notes are comments above it."""
    comments = [f"% {' '.join(text.split())}" for text in (table.title, *table.notes)]
    header, *rows = map(_latex_row, (table.header, *table.rows))
    columns = "l" + "r" * (len(table.header) - 1)
    opening = rf"\begin{{tabular}}{{{columns}}}"
    return "\n".join([*comments, opening, r"\toprule", header, r"\midrule", *rows, r"\bottomrule", r"\end{tabular}"])


def _latex_row(cells: Sequence[str]) -> str:
    row = " & ".join(map(_for_latex, cells))
    # The line break before it would take a bracket or a star for its own.
    return ("{}" if row.lstrip()[:1] in ("[", "*") else "") + row + r" \\"


def _for_latex(text: str) -> str:
    """A text escaped for LaTeX; the paper's names get subscripts."""
    parts = []
    for place, part in enumerate(_BAND.split(_NEGATIVE.sub("−", text))):
        parts.append(
            rf"DAN$_{{\mathrm{{{part}}}}}$" if place % 2 else "".join(_TEX.get(letter, letter) for letter in part)
        )
    return "".join(parts)


def write_table(result: TableResult) -> None:
    """Write the table in every format and, at last, summary.json."""
    tables = [found for found in (rates_table(result), differences_table(result)) if found is not None]
    write_csv(result.directory / "table.csv", CSV_HEADER, result.csv_rows())
    write_text(result.directory / "table.md", "\n\n".join(map(as_markdown, tables)) + "\n")
    write_text(result.directory / "table.tex", "\n\n".join(map(as_latex, tables)) + "\n")
    write_json(result.directory / "summary.json", result.summary())
