"""Messages of the parsers, and config files that are no text."""

import pytest
from omegaconf import OmegaConf

from riskft.arguments.given import options_of
from riskft.arguments.parser import CommandParser, brief, config_faults
from riskft.errors import InputError, UsageError


def test_what_only_jsonargparse_understands_is_left_out():
    message = """Parser key "data.split":
  - Expected a path but {init_args: [1]} either not accessible or invalid
  - Does not validate against any of the Union subtypes
  Subtypes: [<class 'riskft.data.splits.Split'>, <class 'NoneType'>]
  Errors:
    - Problem with given class_path 'riskft.ReaderSplit':
        'list' object has no attribute 'keys'
    - Expected a <class 'NoneType'>
  Given value type: <class 'jsonargparse._util.NestedArg'>
  Given value: NestedArg(key='init_args', val=[1])"""
    assert brief(message).splitlines() == [
        'Parser key "data.split":',
        "    - Problem with given class_path 'riskft.ReaderSplit':",
        "        init_args is of type list, expected a mapping of options",
        "  Given value: init_args=[1]",
    ]


def test_long_messages_are_cut():
    lines = brief("\n".join(["x" * 1000] * 40)).splitlines()
    assert lines[0] == "x" * 300 + "..."
    assert lines[12:] == ["and 28 more"]


def test_a_command_s_parser_shows_no_usage():
    parser = CommandParser(prog="riskft nothing")
    parser.add_argument("--number", type=int)
    with pytest.raises(UsageError) as refused:
        parser.parse_args(["--number", "two"])
    said, where = refused.value.args
    assert said.startswith('Parser key "number"')
    assert "usage" not in said
    assert where == "(all options: riskft nothing --help)"


@pytest.mark.parametrize("way", [("--config={}",), ("--config", "{}")])
def test_config_files_that_are_no_text_are_named_all_at_once(tmp_path, way):
    (tmp_path / "a.yaml").write_bytes(b"run: \xff")
    (tmp_path / "b.yaml").write_bytes("ü: 1".encode("latin-1"))
    (tmp_path / "c.yaml").write_text("ü: 1", encoding="utf-8")
    given = [part.format(tmp_path / f"{name}.yaml") for name in "abc" for part in way]
    with pytest.raises(InputError) as refused, config_faults(options_of(given)):
        raise AssertionError
    assert refused.value.problems == (
        f"{tmp_path}/a.yaml: is not text in UTF-8 (byte 5 is 0xff), expected YAML. Save it as UTF-8, or give another "
        "file.",
        f"{tmp_path}/b.yaml: is not text in UTF-8 (byte 0 is 0xfc), expected YAML. Save it as UTF-8, or give another "
        "file.",
    )


def test_a_reference_to_what_is_not_there():
    with (
        pytest.raises(InputError, match=r"a reference cannot be resolved: .*'RISKFT_NOTHING' not found.$"),
        config_faults([]),
    ):
        OmegaConf.to_container(OmegaConf.create({"a": "${oc.env:RISKFT_NOTHING}"}), resolve=True)
