"""Small files that others have written."""

import pytest

from riskft.errors import InputError
from riskft.files import read_json, read_mapping, read_rows


def test_what_editors_leave_is_read(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n')
    assert read_mapping(tmp_path / "a.json") == {"a": 1}
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfa,b\r\n1,2,3\r\n\r\n4\r\n")
    assert read_rows(tmp_path / "a.csv") == [{"a": "1", "b": "2"}, {"a": "4", "b": ""}]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\xfe{", r"is not text in UTF-8 \(byte 0 is 0xff\)"),
        (b"{", "is not valid JSON in UTF-8"),
        (b"[" * 100_000, "is not valid JSON in UTF-8"),
        (b"[1]", r"holds \[1\], expected a mapping"),
        (None, "cannot be read"),
    ],
)
def test_what_is_no_mapping(tmp_path, content, words):
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=f"a.json {words}"):
        read_mapping(tmp_path / "a.json")


def test_a_folder_is_no_file(tmp_path):
    for read in (read_json, read_rows):
        with pytest.raises(InputError, match=r"cannot be read \(Is a directory\)"):
            read(tmp_path)
