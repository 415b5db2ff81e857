"""Commands import only what they need, so that they answer at once."""

import subprocess
import sys

import pytest

SLOW = ("torch", "lightning", "monai", "matplotlib", "scipy", "pandas", "wandb", "numpy")
LIGHT = [
    ["--version"],
    ["--help"],
    *([command, "--help"] for command in ("data", "convert", "sweep", "compare", "validity", "next", "rank")),
    *(["sweep", command, "--help"] for command in ("status", "offline")),
]
ASK = f"""
import sys
from riskft.cli import main
for arguments in {LIGHT}:
    try:
        main(arguments)
    except SystemExit as error:
        assert not error.code
    print("LOADED", *arguments, *(name for name in {SLOW} if name in sys.modules))
"""
#: What `fit` must not import: W&B comes before all else if it is used, the others belong to other commands.
NOT_FOR_FIT = (
    "wandb",
    "nilearn",
    "jinja2",
    "riskft.compare",
    "riskft.validity",
    "riskft.label_next",
    "riskft.rank",
    "riskft.sweep",
    "riskft.phantom",
)
FIT = f"import riskft.build, sys; print(*(name for name in {NOT_FOR_FIT} if name in sys.modules))"
INTERRUPTED = """
import sys

class Finder:
    def find_spec(self, name, *_):
        if name == "lightning":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Finder())
from riskft.cli import main
main(["fit", "--config", "c.yaml"])
"""


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_help_and_version_import_nothing_slow():
    done = python(ASK)
    lines = [line for line in done.stdout.splitlines() if line.startswith("LOADED")]
    assert lines == [" ".join(["LOADED", *arguments]) for arguments in LIGHT], done.stderr


def test_the_version_is_that_of_the_package():
    from importlib.metadata import version

    import riskft

    assert python("from riskft.cli import main; main(['--version'])").stdout == f"riskft {version('riskft')}\n"
    assert riskft.__version__ == version("riskft")


def test_public_names_are_imported_when_used():
    import riskft
    from riskft.data.readers import MsdReader

    assert riskft.MsdReader is MsdReader
    assert set(riskft.__all__) > {"RiskModule", "RiskTrainer", "hardness", "IGNORE_INDEX"}
    assert all(hasattr(riskft, name) for name in riskft.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        riskft.Nothing  # noqa: B018


@pytest.mark.slow
def test_fit_imports_nothing_of_other_commands():
    done = python(FIT)
    assert done.stdout.split() == [], done.stderr


def test_ctrl_c_while_importing():
    done = python(INTERRUPTED)
    assert done.returncode == 130
    assert done.stderr == "riskft: stopped. To start again: riskft fit --config c.yaml\n"


@pytest.mark.parametrize(("given", "said"), [(["fitt"], "no command 'fitt'"), ([], "Give a command")])
def test_unknown_commands(given, said, capsys):
    from riskft.cli import main

    with pytest.raises(SystemExit) as stopped:
        main(given)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err
