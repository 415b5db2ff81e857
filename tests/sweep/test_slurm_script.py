"""The batch script, and the reading of the queue, without a cluster."""

import subprocess
from pathlib import Path

import pytest
from jsonargparse import ArgumentParser

from riskft.errors import InputError
from riskft.sweep.plan import Run
from riskft.sweep.slurm import SlurmOptions, array_script, directives, queue, read_queue, submit
from riskft.sweep.state import Queued


def test_directives_ask_for_what_the_options_say():
    options = SlurmOptions(
        nodes=2, tasks_per_node=4, gpus_per_node=4, cpus_per_task=8, memory="64G", time="1:00:00", partition="p",
        account="a", constraint="c", throttle=3, extra=["--qos=low"],
    )  # fmt: skip
    assert directives(options, "study", 5, Path("/log"), after=[7, 8]) == [
        "--job-name=study",
        "--array=0-4%3",
        "--nodes=2",
        "--ntasks-per-node=4",
        "--cpus-per-task=8",
        "--signal=SIGUSR1@90",
        "--requeue",
        "--open-mode=append",
        "--output=/log",
        "--gpus-per-node=4",
        "--mem=64G",
        "--time=1:00:00",
        "--partition=p",
        "--account=a",
        "--constraint=c",
        "--dependency=afterok:7:8",
        "--kill-on-invalid-dep=yes",
        "--qos=low",
    ]
    plain = directives(SlurmOptions(), "s", 1, Path("/log"))
    assert not any(line.startswith(("--gpus", "--mem", "--dependency", "--kill")) for line in plain)
    assert "--array=0-0" in plain


def started_commands(tmp_path, runs, index, srun="true"):
    """Runs a script with a stand-in for srun, and returns the arguments that it got, a line a call."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/srun").write_text(f'#!/bin/bash\necho "$@" >>{tmp_path}/calls\n{srun}\n')
    (tmp_path / "bin/srun").chmod(0o755)
    script = tmp_path / "array.sh"
    script.write_text(array_script(SlurmOptions(nodes=2, tasks_per_node=4, setup=["export X=1"]), ["--a"], runs))
    environment = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "SLURM_ARRAY_TASK_ID": str(index)}
    status = subprocess.run(["bash", str(script)], env=environment, check=False).returncode
    return status, (tmp_path / "calls").read_text().splitlines()


def test_the_script_runs_the_steps_of_its_run(tmp_path):
    runs = [Run(str(tmp_path / name), []) for name in ("a", "b c='d'")]
    Path(runs[1].folder).mkdir()
    status, calls = started_commands(tmp_path, runs, 1)
    assert status == 0
    assert [call.partition("main() ")[2] for call in calls] == [
        f"sweep run {runs[1].folder} --step {step} --devices 4 --nodes 2" for step in ("fit", "test")
    ]
    assert all(call.startswith("--kill-on-bad-exit=1 ") for call in calls)
    assert (Path(runs[1].folder) / "log.txt").is_file()


def test_a_step_that_fails_ends_the_job_and_leaves_a_reason(tmp_path):
    run = Run(str(tmp_path / "a"), [])
    Path(run.folder).mkdir()
    status, calls = started_commands(tmp_path, [run], 0, srun="exit 9")
    assert status == 9
    assert len(calls) == 1
    assert (Path(run.folder) / "failed.txt").read_text() == "fit: srun ended with status 9\n"


def test_the_queue_is_read_by_run_folder():
    text = (
        "7|0|RUNNING|None\n7|1|PENDING|Priority\n7|2|COMPLETING|None\n8|0|PENDING|Dependency\n9|0|RUNNING|None\n"
        "10|N/A|RUNNING|None\n8|1|PENDING|JobArrayTaskLimit\n"
    )
    assert read_queue(text, {7: ["a", "b", "c"], 8: ["d", "e"]}) == {
        "a": Queued(7, True),
        "b": Queued(7, False, "Priority"),
        "c": Queued(7, True),
        "d": Queued(8, False, "Dependency"),
        "e": Queued(8, False, "JobArrayTaskLimit"),
    }


def test_numbers_that_no_cluster_can_give_are_refused_together():
    with pytest.raises(InputError) as raised:
        SlurmOptions(nodes=0, tasks_per_node=2, gpus_per_node=1, throttle=0)
    assert len(raised.value.problems) == 3


def test_without_a_cluster_nothing_is_queued_and_nothing_submitted(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert queue(tmp_path) == {}
    with pytest.raises(InputError, match="no sbatch"):
        submit(tmp_path, "s", [Run("a", [])], SlurmOptions())


def test_shipped_options_of_clusters_are_taken():
    files = sorted((Path(__file__).resolve().parents[2] / "configs/slurm").glob("*.yaml"))
    assert files
    for path in files:
        parser = ArgumentParser()
        parser.add_class_arguments(SlurmOptions, "slurm")
        arguments = ["--slurm", str(path), "--slurm.account", "me"]
        options = parser.instantiate_classes(parser.parse_args(arguments)).slurm
        assert options.account == "me"
        assert options.gpus_per_node == 1
        assert options.time == "12:00:00"
