"""Switches mean yes where they are given alone, in every command."""

import sys

import pytest
import torch

from riskft.arguments.flags import with_values
from riskft.build import Command
from riskft.cli import main

FORMS = [(["--overwrite"], True), (["--overwrite", "true"], True), (["--overwrite=true"], True)]
FORMS += [(["--overwrite", "false"], False), (["--overwrite=false"], False), ([], False)]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["convert", "--overwrite", "old", "new"], ["convert", "--overwrite", "true", "old", "new"]),
        (["convert", "old", "new", "--overwrite"], ["convert", "old", "new", "--overwrite", "true"]),
        (["compare", "--overwrite", "--out", "true"], ["compare", "--overwrite", "true", "--out", "true"]),
        (["predict", "--overwrite", "False"], ["predict", "--overwrite", "False"]),
        (["predict", "--run.overwrite", "--overwrite"], ["predict", "--run.overwrite", "true", "--overwrite", "true"]),
        (["fit", "--overwrite"], ["fit", "--run.overwrite", "true"]),
        (["fit", "--overwrite=false", "--x"], ["fit", "--run.overwrite=false", "--x"]),
        (["fit", "--wandb.offline", "--x"], ["fit", "--wandb.offline", "--x"]),
        ([], []),
    ],
)
def test_what_is_made_of_arguments(given, expected):
    assert with_values(given) == expected
    assert with_values(expected) == expected


class Parsed(Exception):  # noqa: N818 - ends a command where its options are known
    pass


def stop_parsed(command):
    raise Parsed(command.options)


@pytest.mark.parametrize(("form", "value"), FORMS)
def test_every_command_takes_every_form(form, value, tmp_path, monkeypatch):
    monkeypatch.setattr(Command, "build", stop_parsed)
    needed = ["--data.reader", "riskft.ManifestReader", "--data.reader.csv", "x.csv", "--data.modalities", "[t1]"]
    for command in ("fit", "predict", "riskmap"):
        with pytest.raises(Parsed) as found:
            main([command, *form, *needed])
        options = found.value.args[0]
        assert (options.run if command == "fit" else options).overwrite is value

    cohorts = []
    monkeypatch.setattr("riskft.phantom.write_cohort", lambda **options: cohorts.append(options) or sys.exit())
    with pytest.raises(SystemExit):
        main(["data", "phantom", *form, str(tmp_path / "cohort")])
    assert cohorts[0]["overwrite"] is value

    torch.save({"weight": torch.zeros(3)}, tmp_path / "old.pt")
    (tmp_path / "new.pt").touch()
    arguments = ["convert", *form, str(tmp_path / "old.pt"), str(tmp_path / "new.pt")]
    if value:
        main(arguments)
    else:
        with pytest.raises(SystemExit):
            main(arguments)
    assert bool((tmp_path / "new.pt").stat().st_size) is value


@pytest.mark.parametrize("command", ["compare", "validity"])
@pytest.mark.parametrize(("form", "value"), FORMS)
def test_reports_too(command, form, value, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/table.csv").touch()
    (tmp_path / "out/validity.csv").touch()
    (tmp_path / "runs").mkdir()
    scratch = ["--scratch", str(tmp_path / "runs")] if command == "validity" else []
    with pytest.raises(SystemExit):
        main([command, *form, str(tmp_path / "runs"), *scratch, "--out", str(tmp_path / "out")])
    # past the refusal, the folder without runs is what is wrong
    assert ("--overwrite true" in capsys.readouterr().err) is not value
