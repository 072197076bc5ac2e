from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unicodedata import normalize

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from facedan_cli.errors import FacedanError
from facedan_cli.protocols.sigset import Record, climbs, read_sigset, stem, write_sigset

PLAIN = """<?xml version="1.0" encoding="UTF-8"?>
<biometric-signature-set>
    <biometric-signature name="nd1S02463">
        <presentation file-format="jpeg" file-name="Query/Original/02463d791.jpg" modality="face" name="nd2R28678" />
    </biometric-signature>
    <biometric-signature name="nd1S04202">
        <presentation file-name="04202d643.jpg"/>
    </biometric-signature>
</biometric-signature-set>
"""

BEE = """<biometric-signature-set xmlns="http://www.bee-biometrics.org/schemas/sigset/0.1">
    <biometric-signature name="a"><presentation name="r1" file-name="1.jpg"/></biometric-signature>
</biometric-signature-set>
"""

BEE_PREFIXED = """<b:biometric-signature-set xmlns:b="http://www.bee-biometrics.org/schemas/sigset/0.1">
    <b:biometric-signature name="a"><b:presentation name="r1" file-name="1.jpg"/></b:biometric-signature>
</b:biometric-signature-set>
"""

FRGC = """<biometric-signature-set>
    <complex-biometric-signature name="a">
        <presentation name="r1" modality="face" file-name="1.ppm"/>
        <presentation name="r2" modality="face" file-name="2.ppm"/>
    </complex-biometric-signature>
    <complex-biometric-signature name="b"><presentation name="r3" file-name="3.ppm"/></complex-biometric-signature>
</biometric-signature-set>
"""

MBGC = """<biometric-signature-set xmlns="http://www.bee-biometrics.org/schemas/sigset/0.1">
    <complex-biometric-signature name="a">
        <complex-presentation name="r1" modality="face">
            <presentation-component name="left"><data file-name="1.jpg" file-format="jpeg"/></presentation-component>
            <presentation-component><data file-name="2.jpg" modality="iris" name="r2"/></presentation-component>
        </complex-presentation>
    </complex-biometric-signature>
    <biometric-signature name="b"><presentation file-name="3.jpg"/></biometric-signature>
</biometric-signature-set>
"""


def read(tmp_path: Path, content: str | bytes) -> list[Record]:
    path = tmp_path / "list.xml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_sigset(path)


def test_plain_dialect(tmp_path: Path) -> None:
    assert read(tmp_path, PLAIN) == [
        Record("nd1S02463", "Query/Original/02463d791.jpg", "nd2R28678", "face", "jpeg"),
        Record("nd1S04202", "04202d643.jpg"),
    ]


@pytest.mark.parametrize("content", [BEE, BEE_PREFIXED])
def test_bee_namespace(tmp_path: Path, content: str) -> None:
    assert read(tmp_path, content) == [Record("a", "1.jpg", "r1")]


def test_frgc_complex_signatures(tmp_path: Path) -> None:
    assert [(record.subject, record.name) for record in read(tmp_path, FRGC)] == [("a", "r1"), ("a", "r2"), ("b", "r3")]


@pytest.mark.parametrize(("content", "signatures"), [(PLAIN, [0, 1]), (BEE, [0]), (FRGC, [0, 0, 1]), (MBGC, [0, 0, 1])])
def test_images_of_a_complex_signature_share_a_row(tmp_path: Path, content: str, signatures: list[int]) -> None:
    assert [record.signature for record in read(tmp_path, content)] == signatures


def test_mbgc_data_inherit_from_their_presentation(tmp_path: Path) -> None:
    assert read(tmp_path, MBGC) == [
        Record("a", "1.jpg", "r1", "face", "jpeg"),
        Record("a", "2.jpg", "r2", "iris"),
        Record("b", "3.jpg"),
    ]


BOMB = """<?xml version="1.0"?>
<!DOCTYPE bomb [
<!ENTITY a "aaaaaaaaaa">
<!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">
]>
<biometric-signature-set>
    <biometric-signature name="&b;"><presentation file-name="x"/></biometric-signature>
</biometric-signature-set>
"""

EXTERNAL = """<!DOCTYPE s SYSTEM "file:///etc/passwd">
<biometric-signature-set/>
"""


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        (BOMB, 2, "document type"),
        (EXTERNAL, 1, "document type"),
        (PLAIN.replace("nd1S02463", "&boom;"), 3, "undefined entity"),
        ("", 1, "invalid XML"),
        ("not XML at all", 1, "invalid XML"),
        (b"\xff\xd8\xff\xe0 a JPEG", 1, "invalid XML"),
        ('<?xml version="1.0" encoding="klingon"?><a/>', 1, "unknown encoding"),
        ('<?xml version="1.0" encoding="shift_jis"?><a/>', 1, "encoding"),
        (PLAIN[:200], 4, "invalid XML"),
        ("\n<html/>", 2, "begins with <html>"),
        ("<biometric-signature-set/>", 1, "lists no image"),
        (PLAIN.replace(' name="nd1S04202"', ""), 6, "<biometric-signature> has no name"),
        (PLAIN.replace('name="nd1S04202"', 'name=" "'), 6, "<biometric-signature> has no name"),
        (PLAIN.replace('<presentation file-name="04202d643.jpg"/>', "<presentation/>"), 7, "has no file-name"),
        (PLAIN.replace('<presentation file-name="04202d643.jpg"/>', ""), 8, "ends without an image"),
        (MBGC.replace('<data file-name="2.jpg" modality="iris" name="r2"/>', "<data/>"), 5, "<data> has no file-name"),
        ('<biometric-signature-set>\n<presentation file-name="a.jpg"/></biometric-signature-set>', 2, "outside"),
        (PLAIN.replace("04202d643.jpg", "../../04202d643.jpg"), 7, r"\.\./04202d643\.jpg climbs out of the directory"),
        (PLAIN.replace("04202d643.jpg", "/etc/passwd"), 7, "/etc/passwd climbs out"),
        (MBGC.replace("1.jpg", r"C:\faces\1.jpg"), 4, "climbs out"),
    ],
)
def test_bad_files_are_refused_with_the_line_and_the_reason(
    tmp_path: Path, content: str | bytes, line: int, reason: str
) -> None:
    with pytest.raises(FacedanError, match=rf"list\.xml, line {line}: .*{reason}") as error:
        read(tmp_path, content)
    assert error.value.fix


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FacedanError, match=r"cannot read the sigset .*missing\.xml"):
        read_sigset(tmp_path / "missing.xml")


text = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"), max_size=12)
visible = text.filter(str.strip)
inside = visible.filter(lambda name: not climbs(name))


@given(records=st.lists(st.builds(Record, visible, inside, text, text, text), min_size=1, max_size=5))
@example(records=[Record("\uf900", "0")])
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, records: list[Record]) -> None:
    """Subjects in one Unicode form, as other lists have them."""
    path = tmp_path_factory.mktemp("sigset") / "list.xml"
    write_sigset(path, records)
    assert read_sigset(path) == [replace(record, subject=normalize("NFC", record.subject)) for record in records]
    assert [entry.name for entry in path.parent.iterdir()] == ["list.xml"]


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "list.xml").mkdir()
    with pytest.raises(OSError, match=r"list\.xml"):
        write_sigset(tmp_path / "list.xml", [Record("a", "1.jpg")])
    assert [entry.name for entry in tmp_path.iterdir()] == ["list.xml"]


def test_real_gbu_lists_are_written_byte_for_byte(shared_data: Path, tmp_path: Path) -> None:
    for path in sorted((shared_data / "gbu").glob("*.xml")):
        write_sigset(tmp_path / path.name, read_sigset(path))
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_real_feret_lists(shared_data: Path) -> None:
    counts = {
        name: len(read_sigset(shared_data / "feret" / f"{name}.xml")) for name in ("fa", "fb", "fc", "dup1", "dup2")
    }
    assert counts == {"fa": 1196, "fb": 1195, "fc": 194, "dup1": 722, "dup2": 234}


@pytest.mark.parametrize(
    ("file_name", "expected"),
    [
        ("02463d689.jpg", "02463d689"),
        ("Query/Original/02463D689.JPG", "02463d689"),
        (r"nd1\Fall2003\04530d235.jpeg", "04530d235"),
        ("Aaron_Peirsol/Aaron_Peirsol_0001", "aaron_peirsol_0001"),
        ("J.Smith_0001", "j.smith_0001"),
        ("J.Smith_0001.png", "j.smith_0001"),
        ("00001_930831_fa.ppm.bz2", "00001_930831_fa"),
        ("00001fa010_930831.tif", "00001fa010_930831"),
        ("Beyonce\u0301.jpg", "beyonc\u00e9"),
    ],
)
def test_stem(file_name: str, expected: str) -> None:
    assert stem(file_name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a/b.jpg", False),
        ("a..b/c...jpg", False),
        ("./a.jpg", False),
        ("..", True),
        ("a/../../b.jpg", True),
        (r"a\..\b.jpg", True),
        ("/a.jpg", True),
        (r"\\server\a.jpg", True),
        (" /a.jpg", True),
        ("c:a.jpg", True),
    ],
)
def test_names_that_climb(name: str, expected: bool) -> None:
    assert climbs(name) is expected
