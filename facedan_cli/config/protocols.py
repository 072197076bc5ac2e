"""The table of protocols, a row each: the only place that names them. It imports no torch, for the command line's sake.

A new protocol is a file with its evaluate function, and here a class of its inputs and a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from facedan_cli.config.fields import setting
from facedan_cli.config.models import imported
from facedan_cli.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class ProtocolEntry:
    """A protocol: everything but its own file.

    Args:
        title: its name in reports.
        inputs: a class whose fields are the options of its command alone; its docstring is the command's help.
        evaluate: "module:function", called with the settings, the workspace and, by name, the inputs and `report`; it
            gives an `evaluation.result.EvaluateResult`.
        measure: kind of the measurement.
        without: further fields of `EvaluateConfig` that have no effect on it.
        lists: default path of its lists below `protocols/` in the workspace; "" without one.
        reader: "module:function", which reads the lists, called with the inputs that are no data sets; "" without
            lists.
        reported: "module:function", which gives the paper's table for the lists, or None; "" if the paper has none.
        tabled: whether `table` can use it.
        classical: whether its table has rows for the models that are no networks.
    """

    title: str
    inputs: type[Any]
    evaluate: str
    measure: Literal["verification", "identification"]
    without: tuple[str, ...] = ()
    lists: str = ""
    reader: str = ""
    reported: str = ""
    tabled: bool = False
    classical: bool = False

    @property
    def idle(self) -> tuple[str, ...]:
        """All fields of `EvaluateConfig` that have no effect on the protocol."""
        return (*(("fpir",) if self.measure == "verification" else ("far", "convention")), *self.without)

    def resolve_inputs(self, inputs: Any, workspace: Workspace) -> dict[str, Any]:
        """The inputs by name, with data sets looked up and default paths of lists filled in.

        Raises:
            FacedanError: there is no such data set.
        """
        return {field.name: self._resolve(field, getattr(inputs, field.name), workspace) for field in fields(inputs)}

    def _resolve(self, field: Field[Any], value: Any, workspace: Workspace) -> Any:
        if value is None:
            return workspace.protocol(self.lists) if self.lists else None
        return workspace.dataset(value) if is_dataset(field) else value

    def read_lists(self, inputs: Mapping[str, Any]) -> Any:
        """Read the lists of resolved inputs; None without lists.

        Raises:
            FacedanError: a list cannot be read.
        """
        given = [inputs[field.name] for field in fields(self.inputs) if not is_dataset(field)]
        return imported(self.reader)(*given) if self.reader else None


def is_dataset(field: Field[Any]) -> bool:
    """Whether an input is a data set."""
    return bool(field.metadata["complete"] == "dataset")


def _images(default: Any = MISSING) -> Any:
    return setting(default, "Aligned faces: a path or a data set's name.", complete="dataset")


@dataclass(frozen=True, kw_only=True)
class GbuInputs:
    """Verification on the Good, the Bad and the Ugly (Phillips et al. 2012), the paper's Table I.

    Reads GBU_{Good,Bad,Ugly}_{Target,Query}.xml and finds the images by base name. VR is the largest true-accept rate
    with at most floor(FAR × impostors) false accepts. Models that differ from the first are marked.

    Example: facedan evaluate gbu --far 0.001 --model RUN_BEFORE --model RUN_AFTER
    """

    images: str = _images("gbu")
    protocol: Path | None = setting(None, "Directory of the sigsets. Default: protocols/gbu in the workspace.")


@dataclass(frozen=True, kw_only=True)
class FeretInputs:
    """Rank-1 identification by the FERET protocol: fb, fc, dup1, dup2 and their mean, the paper's Table II.

    Reads fa, fb, fc, dup1 and dup2 as sigsets or .srt, checks them against the published lists, and finds the images of
    the grey release by base name. Colour FERET cannot run this protocol.

    Example: facedan evaluate feret --model RUN
    """

    images: str = _images("feret")
    protocol: Path | None = setting(None, "Directory of the lists. Default: protocols/feret in the workspace.")
    any_lists: bool = setting(False, "Accept lists other than the published ones; their rates are not comparable.")


@dataclass(frozen=True, kw_only=True)
class LfwInputs:
    """Accuracy by View 2 of LFW (Huang et al. 2007): ten folds, each with the threshold of the other nine.

    Example: facedan evaluate lfw --pairs pairs.txt
    """

    images: str = _images("lfw")
    pairs: Path | None = setting(None, "List of pairs. Default: protocols/lfw/pairs.txt in the workspace.")


@dataclass(frozen=True, kw_only=True)
class PairsInputs:
    """Verification on a list of pairs.

    Example: facedan evaluate pairs pairs.txt --images lfw --far 0.01 --far 0.001
    """

    file: Path = setting(help="LFW's pairs.txt, or lines of two paths and a label (1 or 0).", argument=True)
    images: str = _images()


@dataclass(frozen=True, kw_only=True)
class IdentifyInputs:
    """Identification: rank-1 rate and CMC; ties count against the mate.

    If some probes have no mate in the gallery, also the detection and identification rate (DIR, TPIR) at a
    false-positive identification rate.

    Example: facedan evaluate identify --gallery gate/enrolled --probe gate/today
    """

    gallery: str = setting(help="Known subjects: one folder each, or a list of path<TAB>subject.", complete="dataset")
    probe: str = setting(help="Faces to identify: folders of subjects, or a list.", complete="dataset")


@dataclass(frozen=True, kw_only=True)
class VerifyInputs:
    """Verification of every face of a data set with every face of another, or with each other.

    More than ten million comparisons are streamed in two passes: the same rates in bounded memory, with Wilson's
    intervals. Under torchrun (--nproc-per-node 8 -m facedan_cli evaluate verify …) the processes share them.

    Example: facedan evaluate verify lfw --far 1e-6
    """

    query: str = setting(
        help="Faces, one folder per subject: a path or a data set's name.", argument=True, complete="dataset"
    )
    target: str | None = setting(
        None, "Faces to compare with. Default: those of QUERY, each other.", argument=True, complete="dataset"
    )


@dataclass(frozen=True, kw_only=True)
class ScoresInputs:
    """Verification rates from the scores of any other system; a higher score is more alike (BEE distances: lower).

    Intervals over subjects need a file that names the subjects: Bob's columns, or a matrix with its sigsets beside it.
    Else the intervals are Wilson's.

    Example: facedan evaluate scores openbr.mtx --mask mask.mtx --far 0.001 --convention openbr
    """

    files: list[Path] = setting(
        help="BEE matrices (.mtx), or text: label and score, or Bob's 4 or 5 columns; one row each.", argument=True
    )
    mask: Path | None = setting(None, "Mask of the matrices. Default: by the sigsets beside them.")


_IMAGES = "facedan_cli.evaluation.protocols"
_OF_MODELS = (
    *("model", "embeddings", "embeddings_distance", "fuse", "save_scores"),
    *("layer", "flip", "input", "mean", "std", "channels", "strict", "batch", "workers", "device", "force"),
)

PROTOCOLS: Mapping[str, ProtocolEntry] = {
    "gbu": ProtocolEntry(
        title="The Good, the Bad and the Ugly",
        inputs=GbuInputs,
        evaluate=f"{_IMAGES}:evaluate_gbu",
        measure="verification",
        lists="gbu",
        reader="facedan_cli.protocols.gbu:read_gbu",
        reported="facedan_cli.table.reported:reported_gbu",
        tabled=True,
    ),
    "feret": ProtocolEntry(
        title="FERET",
        inputs=FeretInputs,
        evaluate=f"{_IMAGES}:evaluate_feret",
        measure="identification",
        without=("fpir",),
        lists="feret",
        reader="facedan_cli.protocols.feret:read_feret",
        reported="facedan_cli.table.reported:reported_feret",
        tabled=True,
        classical=True,
    ),
    "lfw": ProtocolEntry(
        title="LFW, View 2",
        inputs=LfwInputs,
        evaluate=f"{_IMAGES}:evaluate_lfw",
        measure="verification",
        lists="lfw/pairs.txt",
        reader="facedan_cli.protocols.lfw:read_view2",
    ),
    "pairs": ProtocolEntry(
        title="Verification of a list of pairs",
        inputs=PairsInputs,
        evaluate=f"{_IMAGES}:evaluate_pairs",
        measure="verification",
        reader="facedan_cli.protocols.pairs:read_pairs",
        tabled=True,
    ),
    "identify": ProtocolEntry(
        title="Identification",
        inputs=IdentifyInputs,
        evaluate=f"{_IMAGES}:evaluate_identify",
        measure="identification",
        tabled=True,
    ),
    "verify": ProtocolEntry(
        title="Verification of every pair",
        inputs=VerifyInputs,
        evaluate="facedan_cli.evaluation.all_pairs:evaluate_verify",
        measure="verification",
    ),
    "scores": ProtocolEntry(
        title="Scores of other systems",
        inputs=ScoresInputs,
        evaluate="facedan_cli.evaluation.external_scores:evaluate_scores",
        measure="verification",
        without=_OF_MODELS,
    ),
}
"""The protocols by the subcommands of `evaluate`."""
