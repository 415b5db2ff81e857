"""What configs and options give, before they are parsed."""

from pathlib import Path
from unittest import mock

import pytest

from riskft.arguments.given import Option, divided, last_file, options_of, updated

CHECKPOINT = "model.source.checkpoint"


@pytest.fixture
def config(tmp_path):
    def write(text, name="a.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


def checkpoint(*options):
    return last_file(options_of(["fit", *options]), CHECKPOINT)


def test_own_options_are_told_from_those_of_fit():
    given = [
        "--unlabelled",
        "scans",
        "--config=a.yaml",
        "-k",
        "3",
        "--data.modalities",
        "[t1, t2]",
        "--run=r",
        "--x",
        "-1",
    ]
    own, others = divided(given, {"--unlabelled", "-k", "--run"})
    assert own == ["--unlabelled", "scans", "-k", "3", "--run=r"]
    assert others == ["--config=a.yaml", "--data.modalities", "[t1, t2]", "--x", "-1"]


def test_both_ways_of_writing_an_option():
    given = ["fit", "-c", "a.yaml", "--config=b.yaml", "--x.y", "1", "--last"]
    assert options_of(given) == [Option("config", "a.yaml"), Option("config", "b.yaml"), Option("x.y", "1")]
    assert options_of([]) == []


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ([], None),
        (["--model.source.checkpoint", "x.pt"], "x.pt"),
        (["--model.source.checkpoint=x.pt"], "x.pt"),
        (["--model.source.checkpoint=x.pt", "--model.source.checkpoint", "y.pt"], "y.pt"),
        (["--model.source.checkpoint", "null"], None),
        (["--model.source", "{checkpoint: x.pt}"], "x.pt"),
        (["--model", '{"source": {"checkpoint": "x.pt"}}'], "x.pt"),
        (["--config", "{model: {source: {checkpoint: x.pt}}}"], "x.pt"),
        (["--config", "{model.source.checkpoint: x.pt}"], "x.pt"),
        (["--config", "missing.yaml"], None),
        (["--config", "{model: [broken"], None),
        (["--config", "{root: /a, model: {source: {checkpoint: '${root}/x.pt'}}}"], "/a/x.pt"),
        (["--config", "{root: /a}", "--model.source.checkpoint", "${root}/x.pt"], "/a/x.pt"),
        (["--config", "{model: {source: {checkpoint: '${nowhere}'}}}"], None),
        (["--config", "{model: {source: {checkpoint: '${model.source.checkpoint}'}}}"], None),
        (["--model.source.checkpoint"], None),
        # a mapping and a list at the same place, which the parser takes for callbacks
        (["--config", "{a: [1], model: {source: {checkpoint: x.pt}}}", "--config", "{a: {b: 1}}"], "x.pt"),
        (["--config", "{a: [1], r: /a}", "--config", "{a: {b: 1}, model: {source: {checkpoint: '${r}/x'}}}"], "/a/x"),
    ],
)
def test_the_last_one_given_counts(options, found):
    assert checkpoint(*options) == found


def test_configs_and_options_in_their_order(config):
    first = config("model: {source: {checkpoint: first.pt, head: [a]}}")
    second = config("model: {source: {checkpoint: second.pt}}", "b.yaml")
    third = config("model: {source: {head: [b]}}", "c.yaml")
    assert checkpoint("--config", first, "--config", second, f"--config={third}") == "second.pt"
    assert checkpoint("--model.source.checkpoint", "own.pt", "--config", second) == "second.pt"
    assert checkpoint("--config", second, "--model.source.checkpoint", "own.pt") == "own.pt"


def test_a_checkpoint_itself_is_not_read(config):
    file = config("a: 1", "large.ckpt")
    with mock.patch.object(Path, "read_text", side_effect=AssertionError):
        assert checkpoint("--model.source.checkpoint", file) == file


def test_mappings_are_merged_and_anything_else_is_replaced():
    assert updated({"a": {"b": 1, "c": [1]}, "d": 1}, {"a": {"c": [2]}, "d": {"e": 2}}) == {
        "a": {"b": 1, "c": [2]},
        "d": {"e": 2},
    }
