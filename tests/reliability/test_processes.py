"""Two processes of which one dies, hangs or finds a fault: the other ends too, soon, and says why."""

import subprocess
import sys
import time
from typing import Any

import pytest
import torch.distributed as dist
from forked_runs import Forked, Study, before_step, forked, free_port, kill, ranks

from riskft.data.datamodule import RiskDataModule
from riskft.distributed import gather_objects, together
from riskft.errors import InputError, ProcessLost
from riskft.risk.store import RiskStore
from riskft.training.ending import end_processes
from riskft.training.module import RiskModule

pytestmark = pytest.mark.slow
LOST = "lost another process"


@pytest.fixture
def study(tmp_path, tiny_manifest):
    return Study(tmp_path, tiny_manifest)


def statuses(processes: list[Forked]) -> list[int]:
    start = time.monotonic()
    found = [process.wait(60) for process in processes]
    assert time.monotonic() - start < 60
    return found


@pytest.mark.parametrize("dead", [0, 1])
def test_a_rank_dies_in_an_epoch(study, dead):
    def before(rank: int) -> None:
        if rank == dead:
            before_step(3, kill)()

    processes = ranks(study.arguments(), study.root / "log", before, timeout="0:10:00")
    assert statuses(processes)[dead] == -9
    other = processes[1 - dead]
    assert f"riskft: fit, epoch 1, step 3: process {1 - dead} of 2 {LOST}" in other.text
    assert "Traceback" not in other.text
    assert study.checkpoint()["global_step"] == 2
    # and it goes on
    assert statuses(ranks(study.arguments("fit", "--ckpt_path", "last"), study.root / "again")) == [0, 0]
    assert study.checkpoint()["global_step"] == 6


def test_a_rank_dies_in_phase_1(study):
    def before(rank: int) -> None:
        if rank == 1:
            RiskStore.write_hardness = lambda *arguments: kill()  # type: ignore[method-assign,assignment,misc]

    processes = ranks(study.arguments(), study.root / "log", before, timeout="0:10:00")
    assert statuses(processes) == [1, -9]
    assert f"riskft: phase 1: hardness: process 0 of 2 {LOST}" in processes[0].text
    assert "Traceback" not in processes[0].text


def test_a_rank_that_hangs_is_waited_for_no_longer_than_the_timeout(study):
    def before(rank: int) -> None:
        if rank == 1:
            RiskStore.write_hardness = lambda *arguments: time.sleep(60)  # type: ignore[method-assign,assignment,misc]

    processes = ranks(study.arguments(), study.root / "log", before, timeout="0:00:08")
    assert processes[0].wait(40) == 1
    assert f"riskft: phase 1: hardness: process 0 of 2 {LOST}" in processes[0].text
    assert "init_args.timeout" in processes[0].text
    with pytest.raises(AssertionError, match="still running"):
        processes[1].wait(0)


def test_an_input_error_of_one_rank_in_phase_1(study):
    """One process sees a volume that the others do not look at."""

    def before(rank: int) -> None:
        if rank == 1:
            for path in study.root.rglob("cases/*/image.nii"):
                path.write_bytes(path.read_bytes()[:500])

    def then(rank: int) -> None:
        setup = RiskDataModule.setup

        def damaged(self: RiskDataModule, stage: str) -> None:
            setup(self, stage)
            before(rank)
            gather_objects(None, "the test's damage")

        RiskDataModule.setup = damaged  # type: ignore[method-assign]

    assert forked(study.arguments("riskmap", "--out", str(study.root / "out")), study.root / "log").wait() == 0
    for path in study.root.rglob("probabilities.npy"):
        path.unlink()
    for path in study.root.rglob("hardness.nii"):
        path.unlink()
    processes = ranks(study.arguments(), study.root / "log", then)
    assert statuses(processes) == [1, 1]
    for process in processes:
        assert "riskft: case0" in process.text
        assert "image.nii: truncated or damaged" in process.text
        assert "Traceback" not in process.text


def test_an_input_error_of_one_rank_in_an_epoch(study):
    def before(rank: int) -> None:
        def fault() -> None:
            raise InputError("case07: its file is not what it was.")

        if rank == 1:
            before_step(3, fault)()

    processes = ranks(study.arguments(), study.root / "log", before, timeout="0:10:00")
    assert statuses(processes) == [1, 1]
    assert "riskft: case07: its file is not what it was." in processes[1].text
    assert f"riskft: fit, epoch 1, step 3: process 0 of 2 {LOST}" in processes[0].text


def test_a_loss_that_is_not_finite_on_one_rank_at_the_end_of_an_epoch(study):
    """Both see it before the checkpoint is written, where losses are only looked at then."""

    def before(rank: int) -> None:
        from riskft.training.finite import FiniteLossGuard

        original, look = RiskModule.training_step, FiniteLossGuard.on_before_backward

        def training_step(self: RiskModule, batch: Any, batch_idx: int) -> Any:
            loss = original(self, batch, batch_idx)
            return loss * float("nan") if rank == 1 and self.global_step == 3 else loss

        def on_before_backward(self: FiniteLossGuard, trainer: Any, module: Any, loss: Any) -> None:
            now, self._look = self._look, lambda: None  # type: ignore[method-assign]
            look(self, trainer, module, loss)
            self._look = now  # type: ignore[method-assign]

        RiskModule.training_step = training_step  # type: ignore[method-assign]
        FiniteLossGuard.on_before_backward = on_before_backward  # type: ignore[method-assign]

    processes = ranks(study.arguments(), study.root / "log", before)
    assert statuses(processes) == [1, 1]
    for process in processes:
        assert "riskft: The loss is NaN or infinite at step 3." in process.text
    assert study.checkpoint()["global_step"] == 2


# -- the parts ---------------------------------------------------------------------------------------------------------


def pair(tmp_path, work) -> list[Forked]:
    """Two processes with a group of their own."""
    port = free_port()

    def action(rank: int) -> Any:
        def inside() -> None:
            store = f"tcp://127.0.0.1:{port}"
            dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
            work(rank)

        return inside

    return [Forked(action(rank), tmp_path / f"log.{rank}", rank, 2, port) for rank in range(2)]


def test_objects_are_gathered_in_order(tmp_path):
    def work(rank: int) -> None:
        assert gather_objects({"rank": rank}, "here") == [{"rank": 0}, {"rank": 1}]

    processes = pair(tmp_path, work)
    assert statuses(processes) == [0, 0], [process.text for process in processes]


def test_processes_in_different_phases_are_told_so(tmp_path):
    def work(rank: int) -> None:
        with pytest.raises(ProcessLost, match=r"different phases \(process 0: phase A; process 1: phase B\)"):
            gather_objects(rank, "phase A" if rank == 0 else "phase B")

    processes = pair(tmp_path, work)
    assert statuses(processes) == [0, 0], [process.text for process in processes]


@pytest.mark.parametrize("faulty", [(0,), (1,), (0, 1)])
@pytest.mark.parametrize("nested", [False, True])
def test_an_input_error_is_everyone_s(tmp_path, faulty, nested):
    """At the end of what they do together, or in the middle of it, where the others are in another collective."""

    def work(rank: int) -> None:
        def look() -> None:
            if rank in faulty:
                raise InputError(f"fault of {rank}")
            if nested:
                gather_objects(rank, "a part of looking")

        with pytest.raises(InputError) as error, together("looking"):
            look()
        assert str(error.value) == "\n".join(f"fault of {number}" for number in faulty)
        assert gather_objects(rank, "and after it they are in step") == [0, 1]

    processes = pair(tmp_path, work)
    assert statuses(processes) == [0, 0], [process.text for process in processes]


def test_one_process_alone_keeps_its_error():
    error = InputError("a fault", ["of one file"])
    with pytest.raises(InputError) as raised, together("looking"):
        raise error
    assert raised.value is error
    assert gather_objects(7, "alone") == [7]


def test_processes_that_do_not_end_are_killed():
    """Those that Lightning has started and that wait for a process that has failed."""
    start = time.monotonic()
    sleeping = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    ending = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    end_processes([sleeping, ending], grace=1.5)
    assert (sleeping.wait(5), ending.wait(5)) == (-9, 3)
    assert time.monotonic() - start < 20
