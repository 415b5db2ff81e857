"""``riskft sweep``: many runs from one file."""

import os
import shlex
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from rich.console import Console
from rich.table import Table

from riskft.arguments.parser import CommandParser
from riskft.commands.imports import quick_imports
from riskft.errors import InputError
from riskft.files import read_json, write_json
from riskft.run.places import refuse_unwritable
from riskft.sweep.local import CommandLine, Commands, run_locally, run_steps
from riskft.sweep.plan import Run, checked, plan_run, plan_runs
from riskft.sweep.runner import given_values, read_for_wandb, run_step, take_wandb_id
from riskft.sweep.slurm import SlurmOptions, queue, submit
from riskft.sweep.spec import Combination, Sweep, read_sweeps
from riskft.sweep.state import State, read_run, refuse_others, state_of, steps_done, write_record

DESCRIPTION = """Run a grid or random draws over riskft's options, from a file in W&B's sweep syntax.

Two additions to that syntax, which W&B's server does not know: `rows` ties options that change together, such as a
method and its learning rate, and a file may hold a list of `sweeps`.

Without --local or --submit the runs are checked and printed. Finished runs are left out, and interrupted ones go on.
Sweeps run one after the other, each only if all runs of the one before ended well (source networks first).

`riskft sweep status FOLDER` shows how far the runs are; `riskft sweep offline FOLDER` lists the W&B runs to upload."""

RUNS = "runs.json"


def main(arguments: Sequence[str], command_line: CommandLine) -> None:
    """Runs ``riskft sweep``, or its command ``status``, ``offline``, ``run`` or ``agent``; exits 1 if a run fails."""
    commands = {"status": _status, "offline": _offline, "run": _run, "agent": _agent}
    if (name := next(iter(arguments), "")) in commands:
        commands[name](arguments[1:], command_line)
    else:
        _sweep(arguments, command_line)


def _sweep(arguments: Sequence[str], command_line: CommandLine) -> None:
    parser = CommandParser(prog="riskft sweep", description=DESCRIPTION)
    parser.add_argument("files", nargs="+", type=Path, help="sweep files")
    parser.add_argument(
        "--dry-run", action="store_true", help="print each run's state and command without starting any"
    )
    parser.add_argument("--local", action="store_true", help="run here")
    parser.add_argument("-j", "--jobs", type=int, default=1, help="runs at a time with --local")
    parser.add_argument("--submit", action="store_true", help="submit one job array per sweep to SLURM")
    parser.add_argument("--test", type=bool, default=True, help="test each run after its training")
    parser.add_class_arguments(SlurmOptions, "slurm")
    options = parser.instantiate_classes(parser.parse_args(list(arguments)))
    if options.local and options.submit:
        raise InputError("Give --local or --submit, not both.")
    if options.jobs < 1:
        raise InputError(f"--jobs is {options.jobs}, expected 1 or more.")
    after: list[int] = []
    # all sweeps first, so that a fault in the last is found before anything starts
    planned = [_planned(sweep, options.test) for file in options.files for sweep in read_sweeps(file)]
    for name, folder, runs in planned:
        refuse_others(runs)
        # runs in the queue of SLURM are waiting or running there
        queued = queue(folder)
        states = {run.folder: state_of(run, queued) for run in runs}
        due = [run for run in runs if states[run.folder].name in ("missing", "failed")]
        _say(f"{name}: {len(runs)} runs, {len(due)} to do")
        if not (options.local or options.submit) or options.dry_run:
            for run in runs:
                _say(f"# {run.folder}: {states[run.folder].name}\nriskft fit {shlex.join(run.arguments)}")
            continue
        refuse_unwritable({"run.root": folder})
        # relative, so that the folder of all runs can be moved
        write_json(folder / RUNS, [os.path.relpath(run.folder, folder) for run in runs])
        for run in due:
            write_record(run, steps_done(Path(run.folder)))
        if options.submit:
            jobs = {entry.job for entry in queued.values()}
            if due:
                jobs.add(submit(folder, name, due, options.slurm, after))
            after = sorted(jobs) or after
        elif not _run_here(due, options.jobs, command_line):
            raise SystemExit(1)
        _say(f"To see their states: riskft sweep status {shlex.quote(str(folder))}")


def _planned(sweep: Sweep, tested: bool) -> tuple[str, Path, list[Run]]:
    """Returns a sweep's name, its folder and its runs."""
    with quick_imports():
        from riskft.sweep.resolve import FitOptions

    resolve = FitOptions()
    runs = plan_runs(sweep, resolve, tested)
    root = resolve(checked(next(sweep.combinations()).values))[0].root
    return sweep.name, Path(root) / "sweeps" / sweep.name, runs


def _run_here(runs: Sequence[Run], jobs: int, command_line: CommandLine) -> bool:
    """Runs what is due and prints how each ended; returns whether all finished."""
    well = True
    with closing(run_locally(runs, jobs, command_line)) as ended:
        for run, state in ended:
            _say(f"{run.folder}: {state.name} {state.metric} {state.reason}".rstrip())
            well &= state.name == "finished"
    return well


def _status(arguments: Sequence[str], _: CommandLine) -> None:
    parser = CommandParser(prog="riskft sweep status", description="Show the state of each run of a sweep.")
    parser.add_argument("folder", type=Path, help="the sweep's folder, runs/sweeps/<name>")
    folder = parser.parse_args(list(arguments)).folder
    runs, queued = _runs(folder), queue(folder)
    Console().print(status_table(runs, {run.folder: state_of(run, queued) for run in runs}))


def status_table(runs: Sequence[Run], states: Mapping[str, State]) -> Table:
    """Returns a table with one row per run, and the count of each state; the states are by folder."""
    names = [states[run.folder].name for run in runs]
    counts = ", ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names))
    table = Table(title=f"{len(runs)} runs: {counts}")
    for column in ("run", "state", "last score", "why"):
        table.add_column(column, overflow="fold")
    for run in runs:
        state = states[run.folder]
        table.add_row(run.folder, state.name, state.metric, state.reason)
    return table


def _offline(arguments: Sequence[str], _: CommandLine) -> None:
    parser = CommandParser(
        prog="riskft sweep offline",
        description="List the commands that upload a sweep's offline W&B runs, oldest first, except those already "
        "uploaded. Pipe them into a shell on a machine with a network.",
    )
    parser.add_argument("folder", type=Path, help="the sweep's folder, runs/sweeps/<name>")
    for run in _runs(parser.parse_args(list(arguments)).folder):
        for part in sorted(Path(run.folder).glob("wandb/offline-run-*")):
            if not list(part.glob("*.wandb.synced")):
                # an interrupted run has several parts with one ID
                _say(f"wandb sync --append {shlex.quote(str(part))}")


def _runs(folder: Path) -> list[Run]:
    path = folder / RUNS
    if not path.is_file():
        raise InputError(f"There is no {path}. Give the folder of a sweep that was started, runs/sweeps/<name>.")
    names = read_json(path)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path}: expected a list of run folders. Start the sweep again to write it.")
    return [read_run(Path(os.path.normpath(folder / name))) for name in names]


def _run(arguments: Sequence[str], command_line: CommandLine) -> None:
    parser = CommandParser(prog="riskft sweep run", description="Run one command of a planned run, or resume it.")
    parser.add_argument("folder", type=Path, help="the run's folder")
    parser.add_argument("--step", required=True, help="fit or test")
    parser.add_argument("--devices", type=int, help="trainer.devices, as the cluster provides them")
    parser.add_argument("--nodes", type=int, help="trainer.num_nodes")
    options = parser.parse_args(list(arguments))
    given = {"devices": options.devices, "num_nodes": options.nodes}
    more = [f"--trainer.{name}={value}" for name, value in given.items() if value is not None]
    run_step(options.folder, options.step, command_line, more)


def _agent(arguments: Sequence[str], command_line: CommandLine) -> None:
    parser = CommandParser(
        prog="riskft sweep agent", description="Run what W&B's agent asks for; give this as the sweep file's `command`."
    )
    parser.add_argument("file", type=Path, help="the sweep file")
    parser.add_argument("values", nargs="*", help="--<parameter>=<value> of each parameter")
    with quick_imports():
        from riskft.sweep.resolve import FitOptions

    sweep = read_for_wandb(parser.parse_args(list(arguments[:1])).file)
    run = plan_run(sweep, Combination(given_values(sweep, arguments[1:])), FitOptions())
    refuse_others([run])
    write_record(run, steps_done(Path(run.folder)))
    take_wandb_id(Path(run.folder), os.environ)
    if (state := run_steps(run, os.environ, Commands(command_line))).name != "finished":
        raise InputError(f"{run.folder}: {state.name} {state.reason}")


def _say(text: str) -> None:
    Console().print(text, soft_wrap=True, markup=False, highlight=False)
