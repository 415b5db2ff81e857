"""Runs a sweep as job arrays of a SLURM cluster."""

import getpass
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from riskft.errors import InputError, refuse
from riskft.files import read_json, write_json, write_text
from riskft.run.folder import RunFolder
from riskft.sweep.plan import Run
from riskft.sweep.state import Queued

JOBS = "jobs.json"
#: Starts riskft with SIGUSR1 blocked until the run can handle it: it would end a process that is still importing.
START = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1}); from riskft.cli import main; main()"


@dataclass(frozen=True)
class SlurmOptions:
    """What each run requests from the cluster.

    Args:
        nodes: Machines.
        tasks_per_node: Processes on each machine: one per device.
        gpus_per_node: GPUs on each machine; 0 requests none.
        cpus_per_task: CPU cores of each process.
        memory: Memory of each machine, ``64G``; null uses the default of the cluster.
        time: Time limit, ``12:00:00``. A run that needs more goes back to the queue and continues later.
        partition: Partition.
        account: Account.
        constraint: Features of the nodes.
        throttle: The most runs at a time; null for no limit.
        extra: Further options of sbatch, ``--qos=low``.
        setup: Shell lines before each run, such as ``module load cuda``.
    """

    nodes: int = 1
    tasks_per_node: int = 1
    gpus_per_node: int = 0
    cpus_per_task: int = 1
    memory: str | None = None
    time: str | None = None
    partition: str | None = None
    account: str | None = None
    constraint: str | None = None
    throttle: int | None = None
    extra: list[str] = field(default_factory=list)
    setup: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Raises InputError, naming all of them, if numbers are not possible."""
        counts = {"nodes": self.nodes, "tasks_per_node": self.tasks_per_node, "cpus_per_task": self.cpus_per_task}
        problems = [f"slurm.{name} is {value}, expected 1 or more" for name, value in counts.items() if value < 1]
        if self.gpus_per_node not in (0, self.tasks_per_node):
            problems.append(
                f"slurm.gpus_per_node is {self.gpus_per_node} and slurm.tasks_per_node {self.tasks_per_node}: each "
                "process trains on one GPU, so they must be equal"
            )
        if self.throttle is not None and self.throttle < 1:
            problems.append(f"slurm.throttle is {self.throttle}, expected 1 or more")
        refuse("The options of the cluster are not usable:", problems)


def directives(options: SlurmOptions, name: str, count: int, log: Path, after: Sequence[int] = ()) -> list[str]:
    """Returns the options of sbatch for an array of ``count`` runs, which waits for other arrays to succeed.

    The log is for output outside the runs; in its name ``%A`` and ``%a`` are the array and the run.
    """
    given = {
        "gpus-per-node": options.gpus_per_node or None,
        "mem": options.memory,
        **{name: getattr(options, name) for name in ("time", "partition", "account", "constraint")},
        "dependency": ":".join(["afterok", *map(str, after)]) if after else None,
        "kill-on-invalid-dep": "yes" if after else None,
    }
    return [
        f"--job-name={name}",
        f"--array=0-{count - 1}" + (f"%{options.throttle}" if options.throttle else ""),
        f"--nodes={options.nodes}",
        f"--ntasks-per-node={options.tasks_per_node}",
        f"--cpus-per-task={options.cpus_per_task}",
        "--signal=SIGUSR1@90",
        "--requeue",
        "--open-mode=append",
        f"--output={log}",
        *(f"--{key}={value}" for key, value in given.items() if value is not None),
        *options.extra,
    ]


def array_script(options: SlurmOptions, lines: Sequence[str], runs: Sequence[Run]) -> str:
    """Returns the batch script of an array of runs, whose folders hold their records, with the lines of sbatch."""
    command = shlex.join([sys.executable, "-c", START, "sweep", "run"])
    devices = f"--devices {options.tasks_per_node} --nodes {options.nodes}"
    own = RunFolder(Path("$folder"))  # which the shell fills in
    steps = {step: None for run in runs for step in run.steps}
    return "\n".join(
        [
            "#!/bin/bash",
            *(f"#SBATCH {line}" for line in lines),
            "set -uo pipefail",
            f"cd {shlex.quote(str(Path.cwd()))}",
            "folders=(",
            *(f"  {shlex.quote(run.folder)}" for run in runs),
            ")",
            'folder="${folders[$SLURM_ARRAY_TASK_ID]}"',
            f'exec >>"{own.log}" 2>&1',
            *options.setup,
            # since SLURM 22.05 srun does not take it from sbatch
            f"export SRUN_CPUS_PER_TASK={options.cpus_per_task}",
            f"for step in {' '.join(steps)}; do",
            f'  srun --kill-on-bad-exit=1 {command} "$folder" --step "$step" {devices} || {{',
            "    status=$?",
            f'    [ -e "{own.failure}" ] || echo "$step: srun ended with status $status" >"{own.failure}"',
            '    exit "$status"',
            "  }",
            "done",
            "",
        ]
    )


def submit(folder: Path, name: str, runs: Sequence[Run], options: SlurmOptions, after: Sequence[int] = ()) -> int:
    """Writes an array of runs into the sweep's folder and submits it; returns its job number.

    It waits until the arrays ``after`` finish without a failure. Raises InputError if there is no sbatch, or it refuses
    the script.
    """
    if shutil.which("sbatch") is None:
        raise InputError("There is no sbatch on this machine: submit from a cluster's login node, or use --local.")
    jobs = _jobs(folder)
    script = folder / f"array-{len(jobs)}.sh"
    log = (folder / "slurm-%A_%a.log").absolute()
    write_text(script, array_script(options, directives(options, name, len(runs), log, after), runs))
    # inside a job, the variables of the outer job must not reach this one
    environment = {key: value for key, value in os.environ.items() if key == "SLURM_CONF" or key[:6] != "SLURM_"}
    command = ["sbatch", "--parsable", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise InputError(f"sbatch refused {script}: {done.stderr.strip()}")
    job = int(done.stdout.strip().partition(";")[0])
    write_json(folder / JOBS, [*jobs, {"job": job, "folders": [run.folder for run in runs]}])
    return job


def queue(folder: Path) -> dict[str, Queued]:
    """Returns a sweep's runs in the cluster's queue, by run folder; raises InputError if the queue does not answer."""
    jobs = {entry["job"]: entry["folders"] for entry in _jobs(folder)}
    if not jobs or shutil.which("squeue") is None:
        return {}
    command = ["squeue", "--noheader", "--array", f"--user={getpass.getuser()}", "--format=%F|%K|%T|%r"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"squeue does not show the queue of the cluster: {done.stderr.strip()}")
    return read_queue(done.stdout, jobs)


def read_queue(text: str, jobs: dict[int, list[str]]) -> dict[str, Queued]:
    """Returns the runs in squeue's output (array number|index|state|reason), by folder, given those of each array."""
    found = {}
    for line in text.splitlines():
        array, index, state, reason = line.split("|", 3)
        if array.isdigit() and index.isdigit() and int(array) in jobs:
            waiting = state in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED")
            reason = reason if waiting and reason != "None" else ""
            found[jobs[int(array)][int(index)]] = Queued(int(array), not waiting, reason)
    return found


def _jobs(folder: Path) -> list[dict[str, Any]]:
    path = folder / JOBS
    if not path.is_file():
        return []
    jobs = read_json(path)
    if not isinstance(jobs, list) or not all(isinstance(job, dict) for job in jobs):
        raise InputError(f"{path}: expected a list of jobs as `riskft sweep --submit` writes it.")
    return jobs
