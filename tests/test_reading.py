"""Small files: what others have written, tables, and lists that are cut short."""

import pytest

from riskft.errors import InputError, first_few
from riskft.files import csv_text, read_json, read_mapping, read_rows, read_table


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


def test_a_table_is_read_as_it_was_written(tmp_path):
    rows = [["a,b", 'say "x"'], ["two\nlines", "\u2028"]]
    (tmp_path / "a.csv").write_text(csv_text(["c", "d"], rows))
    assert [list(row.values()) for row in read_rows(tmp_path / "a.csv")] == rows
    (tmp_path / "a.tsv").write_text("c\td\n\n \t\n1\t2,3\n")
    assert read_table(tmp_path / "a.tsv", "\t") == [(1, ["c", "d"]), (4, ["1", "2,3"])]
    (tmp_path / "empty.csv").touch()
    assert read_rows(tmp_path / "empty.csv") == []


def test_a_long_list_names_its_first_items():
    assert first_few([1, 2, 3]) == ["1", "2", "3"]
    assert first_few("abcde", 2, str.upper) == ["A", "B", "and 3 more"]
    assert first_few([]) == []
