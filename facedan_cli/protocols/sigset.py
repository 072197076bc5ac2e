"""Sigsets, the XML lists of images and subjects of the Biometrics Evaluation Environment.

Four dialects are read: the plain one of GBU and FERET, the same in the namespace of the BEE schema, FRGC's
`complex-biometric-signature` with several presentations, and MBGC's with `presentation-component` and `data` inside.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn
from xml.parsers import expat
from xml.sax.saxutils import quoteattr

from facedan_cli.errors import FacedanError
from facedan_cli.text import one_form, open_given
from facedan_cli.workspace import write_text

_ROOT = "biometric-signature-set"
_SIGNATURES = {"biometric-signature", "complex-biometric-signature"}
_CONTAINERS = {*_SIGNATURES, "complex-presentation"}
_IMAGES = {"presentation", "data"}
# Two to four characters: "02463d689.jpg" ends in an extension, "J.Smith_0001" does not. Colour FERET packs its images.
_EXTENSION = re.compile(r"\.[a-z][a-z0-9]{1,3}(\.(bz2|gz))?$", re.ASCII)
_ABSOLUTE = re.compile(r"/|[a-z]:", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class Record:
    """One image of a sigset.

    Attributes:
        subject: label of the subject in the protocol.
        file_name: path of the image as the list has it; its directories seldom fit the user's.
        name: identifier of the recording; empty where the list has none.
        modality: such as "face"; may be empty.
        file_format: such as "jpeg"; may be empty.
        signature: which signature of the list it belongs to, from 0: the row or column of a BEE matrix, which images of
            one complex signature share.
    """

    subject: str
    file_name: str
    name: str = ""
    modality: str = ""
    file_format: str = ""
    signature: int = field(default=0, compare=False)


def read_sigset(path: Path) -> list[Record]:
    """Read the images of a sigset in the order of the file.

    A document type declaration is refused, so that no entity is ever declared, expanded or fetched.

    Raises:
        FacedanError: the file cannot be read, is no sigset, has a document type, lists no image, or an element lacks
            its subject or file name, or its file name climbs out of the directory. The message names the file and the
            line.
    """
    try:
        with open_given(path) as file:
            content = file.read()
    except OSError as error:
        raise FacedanError(f"cannot read the sigset {path}: {error.strerror}", "Check the path.") from error
    return _Reader(path).read(content)


def write_sigset(path: Path, records: Iterable[Record]) -> None:
    """Write a sigset in the plain dialect and the layout of the GBU lists, through a temporary file."""
    lines = ["<biometric-signature-set>"]
    for record in records:
        attributes = {
            "file-format": record.file_format,
            "file-name": record.file_name,
            "modality": record.modality,
            "name": record.name,
        }
        presentation = " ".join(f"{key}={quoteattr(value)}" for key, value in attributes.items() if value)
        lines += [
            f"    <biometric-signature name={quoteattr(record.subject)}>",
            f"        <presentation {presentation} />",
            "    </biometric-signature>",
        ]
    lines += ["</biometric-signature-set>", ""]
    write_text(path, "\n".join(lines))


def stem(file_name: str) -> str:
    """The name by which images are matched: without directories (either slash), extension and case."""
    base = file_name.replace("\\", "/").rpartition("/")[2]
    return without_extension(base)


def climbs(file_name: str) -> bool:
    """Whether a name leads out of its directory by an absolute path, a drive or `..`."""
    path = file_name.strip().replace("\\", "/")
    return bool(_ABSOLUTE.match(path)) or ".." in path.split("/")


def without_extension(file_name: str) -> str:
    """The path without its extension, in one case and one Unicode form (macOS stores accents apart)."""
    return _EXTENSION.sub("", one_form(file_name).casefold())


class _Reader:
    """The state of one pass of the XML parser over a sigset."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: list[Record] = []
        self.subject: str | None = None
        self.signatures = 0
        self.presentation: dict[str, str] = {}
        self.component: dict[str, str] = {}
        self.images_before: dict[str, int] = {}
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.StartDoctypeDeclHandler = self._refuse_doctype
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end

    def read(self, content: bytes) -> list[Record]:
        try:
            self.parser.Parse(content, True)
        except expat.ExpatError as error:
            self._fail(f"invalid XML: {expat.ErrorString(error.code)}")
        except (LookupError, ValueError) as error:
            self._fail(str(error))
        if not self.records:
            self._fail("the sigset lists no image")
        return self.records

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        element = _local(tag)
        if not self.images_before:
            if element != _ROOT:
                self._fail(f"this is not a sigset: it begins with <{element}>, not with <{_ROOT}>")
            self.images_before[_ROOT] = 0
        if element in _CONTAINERS:
            self.images_before[element] = len(self.records)
        if element in _SIGNATURES:
            self.subject = one_form(self._required(element, attributes, "name"))
            self.signatures += 1
            self.presentation = self.component = {}
        elif element == "complex-presentation":
            self.presentation, self.component = attributes, {}
        elif element == "presentation-component":
            self.component = attributes
        elif element in _IMAGES:
            self._add(element, {**self.component, **self.presentation, **attributes})

    def _add(self, element: str, attributes: dict[str, str]) -> None:
        if self.subject is None:
            self._fail(f"<{element}> stands outside a signature")
        file_name = self._required(element, attributes, "file-name")
        if climbs(file_name):
            self._fail(f"the file name {file_name[:100]} climbs out of the directory of the images")
        self.records.append(
            Record(
                subject=self.subject,
                file_name=file_name,
                name=attributes.get("name", ""),
                modality=attributes.get("modality", ""),
                file_format=attributes.get("file-format", ""),
                signature=self.signatures - 1,
            )
        )

    def _end(self, tag: str) -> None:
        element = _local(tag)
        if element in _CONTAINERS and self.images_before[element] == len(self.records):
            self._fail(f"<{element}> ends without an image")
        if element in _SIGNATURES:
            self.subject = None

    def _refuse_doctype(self, *_: object) -> None:
        self._fail("a document type (<!DOCTYPE …>) is refused: a sigset needs none, and it can hide entity bombs")

    def _required(self, element: str, attributes: dict[str, str], key: str) -> str:
        value = attributes.get(key, "")
        if not value.strip():
            self._fail(f"<{element}> has no {key}")
        return value

    def _fail(self, reason: str) -> NoReturn:
        raise FacedanError(
            f"{self.path}, line {self.parser.CurrentLineNumber}: {reason}",
            "Take the list from its distribution again, or correct that line.",
        )


def _local(tag: str) -> str:
    """The name of an element without its namespace."""
    return tag.rpartition(" ")[2]
