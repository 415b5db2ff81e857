"""SIGUSR1 puts the job back in the queue, after the epoch if it ends in time."""

import os
import signal
import threading
import time

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from riskft.training.requeue import Requeue, in_slurm_task, job_name


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """A stand-in that keeps what it was asked; restores the signal's handler."""
    program = tmp_path / "scontrol"
    program.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    for name in ("SLURM_ARRAY_JOB_ID", "SLURM_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    before = signal.getsignal(signal.SIGUSR1)
    yield lambda: (tmp_path / "asked").read_text() if (tmp_path / "asked").exists() else ""
    signal.signal(signal.SIGUSR1, before)


def wait_for(answer):
    end = time.monotonic() + 10
    while not answer() and time.monotonic() < end:
        time.sleep(0.02)
    return answer()


class SignalledModel(BoringModel):
    """Is told to stop in the middle of epoch 1, and keeps how often the job had been requeued at each step."""

    def __init__(self, scontrol):
        super().__init__()
        self.scontrol = scontrol
        self.seen = []

    def on_train_batch_start(self, batch, batch_idx):
        if (self.current_epoch, batch_idx) == (1, 1):
            os.kill(os.getpid(), signal.SIGUSR1)
        self.seen.append((self.current_epoch, batch_idx, self.scontrol().count("requeue")))


def test_a_fit_goes_back_after_the_epoch_whose_checkpoint_is_written(scontrol, tmp_path):
    model = SignalledModel(scontrol)
    trainer = Trainer(
        max_epochs=3, limit_train_batches=3, limit_val_batches=0, accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path, callbacks=[Requeue(tmp_path, "fit", patience=60)],
    )  # fmt: skip
    trainer.fit(model)
    requeued = {epoch: {count for at, _, count in model.seen if at == epoch} for epoch in range(3)}
    assert requeued == {0: {0}, 1: {0}, 2: {1}}
    assert scontrol() == "requeue 12\n"


def test_outside_an_epoch_it_goes_back_when_patience_ends(scontrol, tmp_path):
    Requeue(tmp_path, "fit", patience=0.3)
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGUSR1)
    assert scontrol() == ""
    assert wait_for(scontrol) == "requeue 12\n"


def start(folder, command="fit", epochs=0, cases=0):
    """One start of the job that the time limit ends."""
    callback = Requeue(folder, command, patience=0.0)
    for _ in range(cases):
        callback.on_predict_batch_end(None, None, {}, {}, 0)
    for _ in range(epochs):
        callback.on_train_epoch_end(None, None)
    callback._go_back()


def test_a_job_whose_limit_is_too_short_for_an_epoch_does_not_go_round_for_ever(scontrol, tmp_path, caplog):
    for _ in range(8):
        start(tmp_path)
    assert scontrol() == 4 * "requeue 12\n"
    assert "The job 12 is not queued again: 5 starts of `fit` did not end one epoch. Give the job" in caplog.text
    start(tmp_path, epochs=1)
    assert scontrol() == 5 * "requeue 12\n"
    for _ in range(4):
        start(tmp_path)
    assert scontrol() == 9 * "requeue 12\n"


@pytest.mark.parametrize("command", ["test", "validate", "riskmap"])
def test_a_command_without_epochs_that_is_longer_than_the_limit_does_not_go_round_for_ever(
    scontrol, tmp_path, caplog, command
):
    for _ in range(20):  # a training of many starts, each of which got further
        start(tmp_path, epochs=3)
    assert scontrol() == 20 * "requeue 12\n"
    for _ in range(8):
        start(tmp_path, command)
    assert scontrol() == 24 * "requeue 12\n"
    assert f"5 starts of `{command}` did not end and begin from the beginning each time. Give the job" in caplog.text


def test_a_prediction_goes_back_as_long_as_each_start_segments_a_case(scontrol, tmp_path, caplog):
    for _ in range(9):
        start(tmp_path, "predict", cases=2)
    for _ in range(7):
        start(tmp_path, "predict")
    assert scontrol() == (9 + 4) * "requeue 12\n"
    assert "5 starts of `predict` did not end one case. Give the job" in caplog.text


def test_another_job_has_starts_of_its_own_and_a_damaged_count_is_none(scontrol, tmp_path, monkeypatch):
    for _ in range(6):
        start(tmp_path, "test")
    assert scontrol() == 4 * "requeue 12\n"
    monkeypatch.setenv("SLURM_JOB_ID", "13")
    start(tmp_path, "test")
    assert scontrol() == 4 * "requeue 12\n" + "requeue 13\n"
    for content in ("{", "[]", '{"of": ["13", "test"], "starts": null}'):
        (tmp_path / "requeue.json").write_text(content)
        start(tmp_path, "test")
    assert scontrol().count("requeue 13") == 4


def test_where_starts_cannot_be_counted_the_job_does_not_go_back(scontrol, tmp_path, caplog):
    (tmp_path / "file").touch()
    start(tmp_path / "file" / "run", "test")
    assert scontrol() == ""
    assert "its starts cannot be counted in" in caplog.text


def test_a_signal_that_came_before_the_run_could_answer_is_kept(scontrol, tmp_path):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    # to this thread: in a job all hold the signal back, in a test process others, which exist already, do not
    signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
    assert scontrol() == ""
    Requeue(tmp_path, "fit", patience=0.0)
    assert wait_for(scontrol) == "requeue 12\n"


def test_other_ranks_leave_it_to_the_first(scontrol, tmp_path, monkeypatch):
    monkeypatch.setattr("riskft.training.requeue.is_first_rank", lambda: False)
    callback = Requeue(tmp_path, "fit", patience=0.0)
    os.kill(os.getpid(), signal.SIGUSR1)
    assert callback._timer is None
    assert scontrol() == ""


def test_a_task_of_an_array_goes_back_alone():
    assert job_name({"SLURM_JOB_ID": "12"}) == "12"
    assert job_name({"SLURM_JOB_ID": "14", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "2"}) == "12_2"


def test_only_tasks_of_srun_count():
    task = {"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0", "SLURM_PROCID": "1"}
    assert in_slurm_task(task)
    for name in task:
        assert not in_slurm_task({key: value for key, value in task.items() if key != name})
