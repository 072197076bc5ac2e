"""The settings of an evaluation, checked and resolved before any work."""

from __future__ import annotations

from dataclasses import replace

from facedan_cli.config.common import EvaluateConfig
from facedan_cli.config.fields import check_choices
from facedan_cli.errors import UsageError
from facedan_cli.metrics.roc import parse_far
from facedan_cli.report import Report


def resolve_evaluate(config: EvaluateConfig) -> EvaluateConfig:
    """Check the settings; without replicates there are no bootstrap intervals.

    Raises:
        UsageError: an option has an impossible value.
    """
    for rate in config.far:
        parse_far(rate)
    for rate in config.fpir:
        try:
            parse_far(rate)
        except UsageError as error:
            raise UsageError(f"'{rate}' is not a false-positive identification rate", error.fix) from error
    check_choices(config)
    if config.replicates < 0:
        raise UsageError(f"--replicates must be at least 0, not {config.replicates}", "0 gives no intervals")
    return replace(config, ci="none") if config.ci == "bootstrap" and not config.replicates else config


def without_bootstrap(config: EvaluateConfig, reason: str, report: Report) -> EvaluateConfig:
    """The settings without bootstrap, for unknown subjects: Wilson's intervals, with a note.

    Args:
        config: resolved.
        reason: why subjects cannot be resampled.
        report: gets the note.
    """
    if config.ci != "bootstrap":
        return config
    report.note(
        f"{reason}: the intervals are Wilson's, which take comparisons of one subject to be independent and are too "
        "narrow"
    )
    return replace(config, ci="wilson")
