"""Runs a draw in a process of its own, and judges how it ended."""

import hashlib
import multiprocessing
import os
import re
import resource
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from forked_runs import Forked
from fuzz_draws import Draw
from lightning.pytorch import Trainer
from made_parsers import use_made_parsers
from pictures import leave_out_figures

import riskft.sweep.local
from riskft.cli import main

SECONDS = 60.0
MEMORY = 10 << 30
#: The part of the commands that really draw their pictures, which takes half of the time of a tiny training.
DRAWN = 0.15
#: What no message to a user should hold: the text of an error that nobody foresaw.
RAW = re.compile(
    r"Traceback|Exception ignored|'NoneType' object|object has no attribute|is not (subscriptable|iterable|callable)|"
    r"unsupported operand|index out of range|takes \d+ positional|AssertionError|KeyError|"
    r"has no len\(\)|not supported between|cannot unpack|values to unpack|^riskft: '?[\w.]*'?\s*$",
    re.MULTILINE,
)
#: What another library says of its own options, quoted in a message that names them.
QUOTED = re.compile(r"(?<=fails when it is used )\(.*?\)(?=: change)|(?<=with the options given: ).*")
#: Found when the module is set up or the weights are loaded, which is after the record of the run was written.
AFTER_RECORD = re.compile("does not fit this command's network|, which needs phase 1|`val_check_interval` \\(")
#: What a refused command may leave or change in a folder that was there.
MINOR = re.compile(r"(^cache/|/\.lock$|/run\.lock$|^empty$)")
#: What a sweep notes of a run that failed.
NOTED = re.compile(r"(/failed\.txt|/log\.txt|/sweep\.json|/runs\.json|^runs/swept/)")


@dataclass
class Verdict:
    """How a draw ended, and what is wrong with that."""

    ending: str
    problems: list[str] = field(default_factory=list)


def start(draw: Draw, folder: Path) -> Forked:
    """Starts a draw's command in its folder."""

    def action() -> None:
        os.chdir(folder)
        os.environ["HOME"] = str(folder.parent)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        riskft.sweep.local.prepared_processes = lambda: multiprocessing.get_context("fork")  # type: ignore[assignment]
        _note_work(folder.parent / "works")
        use_made_parsers()
        if Random(draw.name).random() > DRAWN:
            leave_out_figures()
        main(draw.arguments)

    return Forked(action, folder.parent / "log")


def _note_work(marker: Path) -> None:
    """Leaves a file when preparations are over and steps begin: what fails then may have changed the run."""
    original = Trainer._run_stage

    def run_stage(self: Trainer) -> object:
        marker.touch()
        return original(self)

    Trainer._run_stage = run_stage  # type: ignore[method-assign,assignment]


def snapshot(folder: Path) -> dict[str, str]:
    """Returns a digest of every file below a folder."""
    return {str(path.relative_to(folder)): _digest(path) for path in folder.rglob("*") if not path.is_dir()}


def _digest(path: Path) -> str:
    return os.readlink(path) if path.is_symlink() else hashlib.md5(path.read_bytes()).hexdigest()


def judge(draw: Draw, folder: Path, before: dict[str, str], process: Forked) -> Verdict:
    """Waits for a draw's command and says what is wrong with its end."""
    try:
        code = process.wait(SECONDS)
    except AssertionError:
        return Verdict("hangs", [f"hangs: still running after {SECONDS:.0f} s"])
    text = process.text
    late = (folder.parent / "works").exists()
    verdict = Verdict(f"status {code}{' at work' if late and code else ''}")
    if "Traceback (most recent call last)" in text or code not in (0, 1, 2):
        verdict.problems.append(f"ends with status {code} and a traceback")
    elif code:
        message = text[text.rfind("riskft: ") :] if "riskft: " in text else ""
        faults = draw.command == "data check" and code == 1 and "fault" in text
        usage = code == 2 and "error:" in text
        if not message and not faults and not usage and draw.command != "sweep":
            verdict.problems.append(f"ends with status {code} and no message")
        elif found := RAW.search(QUOTED.sub("", message or text)):
            verdict.problems.append(f"shows {found[0]!r}")
        elif len(message.splitlines()) > 40:
            verdict.problems.append(f"says it in {len(message.splitlines())} lines")
    if code and not late and not AFTER_RECORD.search(text):
        verdict.problems += _changes(draw, before, snapshot(folder))
    return verdict


def _changes(draw: Draw, before: dict[str, str], after: dict[str, str]) -> list[str]:
    excused = [MINOR, NOTED] if draw.command.startswith("sweep") else [MINOR]
    changed = [name for name, digest in before.items() if after.get(name) != digest]
    old = {str(Path(name).parent) for name in before if name.startswith("runs/tiny/")}
    new = [name for name in after if name not in before and any(Path(name).is_relative_to(one) for one in old)]
    left = [name for name in [*changed, *new] if not any(one.search(name) for one in excused)]
    return [f"changed or left {', '.join(sorted(left)[:4])}"] if left else []
