"""Records of a sweep that something else has written into."""

import json

import pytest

from riskft.commands.sweep import main
from riskft.errors import InputError
from riskft.sweep.plan import Run
from riskft.sweep.state import last_metric, read_run, steps_done, write_record


@pytest.fixture
def folder(tmp_path):
    write_record(Run(str(tmp_path), ["--a=1"]), ["fit"])
    return tmp_path


def change(folder, values):
    content = json.loads((folder / "sweep.json").read_text())
    (folder / "sweep.json").write_text(json.dumps({**content, **values}))


def test_a_sound_record(folder):
    assert read_run(folder) == Run(str(folder), ["--a=1"])
    assert steps_done(folder) == ["fit"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"done": 0}, "done is 0, expected a list"),
        ({"arguments": ["--a=1", 10]}, "arguments holds 10, expected text"),
        ({"folder": None, "tested": "yes"}, "folder is None, expected a str\n  - tested is 'yes', expected a bool"),
    ],
)
def test_values_of_another_kind(folder, values, words):
    change(folder, values)
    for read in (read_run, steps_done):
        with pytest.raises(InputError) as refused:
            read(folder)
        assert words in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe{", b"[]", b"3", b"{"])
def test_files_of_another_kind(folder, content):
    (folder / "sweep.json").write_bytes(content)
    with pytest.raises(InputError, match=r"sweep.json"):
        read_run(folder)


@pytest.mark.parametrize("content", ["3", "[null]", "{", '{"a": 1}'])
@pytest.mark.parametrize("command", ["status", "offline"])
def test_a_list_of_runs_that_is_none(tmp_path, command, content):
    (tmp_path / "runs.json").write_text(content)
    with pytest.raises(InputError, match=r"runs.json"):
        main([command, str(tmp_path)], print)


def test_curves_that_cannot_be_read_do_not_hide_the_state(tmp_path):
    (tmp_path / "metrics.csv").write_bytes(b"val/dice,epoch\nhigh,1\n")
    assert last_metric(tmp_path).startswith("metrics.csv cannot be read (ValueError")
