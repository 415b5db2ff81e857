"""Files that are whole or absent, and fingerprints."""

import hashlib
import json

import pytest

from riskft.files import atomic_path, file_digest, fingerprint, write_json, write_text


def test_atomic_path_shows_the_target_only_when_it_is_whole(tmp_path):
    target = tmp_path / "new" / "folder" / "volume.nii.gz"
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.name.endswith(".nii.gz")  # by which nibabel chooses the format
        temporary.write_text("half")
        assert not target.exists()
        temporary.write_text("whole")
    assert target.read_text() == "whole"
    assert list(target.parent.iterdir()) == [target]


def test_atomic_path_keeps_the_old_content_until_the_end(tmp_path):
    target = tmp_path / "file.txt"
    target.write_text("old")
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"


@pytest.mark.parametrize("written", [True, False])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_atomic_path_leaves_nothing_behind_on_an_error(tmp_path, written, error):
    target = tmp_path / "file.txt"
    target.write_text("old")

    def write():
        with atomic_path(target) as temporary:
            if written:
                temporary.write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert list(tmp_path.iterdir()) == [target]
    assert target.read_text() == "old"


def test_two_writers_do_not_meet(tmp_path):
    target = tmp_path / "file.txt"
    with atomic_path(target) as first:
        first.write_text("first")
        with atomic_path(target) as second:
            assert second != first
            second.write_text("second")
        assert target.read_text() == "second"
    assert target.read_text() == "first"
    assert list(tmp_path.iterdir()) == [target]


def test_write_text_and_json(tmp_path):
    write_text(tmp_path / "a" / "text", "größer\n")
    assert (tmp_path / "a" / "text").read_bytes() == "größer\n".encode()
    write_json(tmp_path / "value.json", {"b": [1, 2], "a": None})
    text = (tmp_path / "value.json").read_text()
    assert json.loads(text) == {"b": [1, 2], "a": None}
    assert text.index('"a"') < text.index('"b"')


@pytest.mark.parametrize("size", [0, 5, (1 << 20) + 7])
def test_file_digest(tmp_path, size):
    content = bytes(range(256)) * (size // 256 + 1)
    path = tmp_path / "file"
    path.write_bytes(content[:size])
    assert file_digest(path) == hashlib.blake2b(content[:size], digest_size=16).hexdigest()
    assert len(file_digest(path)) == 32


BASE = {"version": 1, "spacing": [1.0, 1.0, 2.0], "labels": {"core": [1, 4]}, "label": None}


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"version": "1"},
        {"spacing": [1.0, 2.0, 1.0]},
        {"labels": {"core": [4, 1]}},
        {"labels": {"rim": [1, 4]}},
        {"label": False},
        {"more": 0},
    ],
)
def test_fingerprint_changes_with_any_part(change):
    assert fingerprint({**BASE, **change}) != fingerprint(BASE)


def test_fingerprint_is_stable():
    assert fingerprint(dict(reversed(BASE.items()))) == fingerprint(BASE)
    assert fingerprint({"spacing": (1, 2)}) == fingerprint({"spacing": [1, 2]})
    # of any process and version: a change here would make every cache and risk store anew
    assert fingerprint({"a": 1}) == hashlib.blake2b(b'{"a": 1}', digest_size=8).hexdigest()
