"""A run that is killed, wherever, and goes on: the weights of an undisturbed run."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from forked_runs import STEPS_AN_EPOCH, Study, assert_same_weights, before_step, forked, kill, ranks

from riskft.risk.store import RiskStore
from riskft.training import checkpoint_io
from riskft.training.module import RiskModule

pytestmark = pytest.mark.slow
KILLED = -signal.SIGKILL
TERMINATED = 128 + signal.SIGTERM


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, tiny_manifest):
    """The last checkpoint of three epochs with flips, noise and risk maps, and the maps."""
    study = Study(tmp_path_factory.mktemp("undisturbed"), tiny_manifest)
    done = forked(study.arguments(), study.root / "log")
    assert done.wait() == 0, done.text
    return study


@pytest.fixture
def study(tmp_path, tiny_manifest):
    return Study(tmp_path, tiny_manifest)


def go_on(study: Study, undisturbed: Study) -> str:
    done = forked(study.arguments("fit", "--ckpt_path", "last"), study.root / "resumed")
    assert done.wait() == 0, done.text
    assert_same_weights(undisturbed.checkpoint(), study.checkpoint())
    assert not list(study.root.rglob(".tmp-*"))
    return done.text


def maps(study: Study) -> dict[str, bytes]:
    folder = study.root / "cache/risk"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.nii")}


def test_kill_in_phase_1(study, undisturbed):
    def die_after_two_subjects() -> None:
        write, written = RiskStore.write_joint, []

        def write_joint(self: RiskStore, subject: str, joint: torch.Tensor) -> None:
            if len(written) == 2:
                kill()
            write(self, subject, joint)
            written.append(subject)

        RiskStore.write_joint = write_joint  # type: ignore[method-assign]

    assert forked(study.arguments(), study.root / "killed", die_after_two_subjects).wait() == KILLED
    assert len(list(study.root.rglob("joint.json"))) == 2
    # of three training cases and one validation case two are left
    assert "Phase 1: source network: 2 in" in go_on(study, undisturbed)
    assert len(maps(study)) == 3 * 4
    assert maps(study) == maps(undisturbed)


@pytest.mark.parametrize("step", [STEPS_AN_EPOCH + 1, 2 * STEPS_AN_EPOCH])
def test_kill_in_an_epoch(study, undisturbed, step):
    assert forked(study.arguments(), study.root / "killed", before_step(step, kill)).wait() == KILLED
    assert study.checkpoint()["global_step"] == step // STEPS_AN_EPOCH * STEPS_AN_EPOCH
    go_on(study, undisturbed)


def test_kill_while_a_checkpoint_is_written(study, undisturbed):
    def die_in_the_second_epoch_s() -> None:
        save = torch.save

        def half(checkpoint: dict[str, Any], stream: Any) -> None:
            if checkpoint["global_step"] < 2 * STEPS_AN_EPOCH:
                save(checkpoint, stream)
                return
            stream.write(b"PK" + bytes(1000))
            stream.flush()
            kill()

        checkpoint_io.torch.save = half  # type: ignore[assignment]

    assert forked(study.arguments(), study.root / "killed", die_in_the_second_epoch_s).wait() == KILLED
    left = [path.name for path in (study.folder() / "checkpoints").iterdir()]
    # what is half-written has no name that Lightning takes for a checkpoint to go on from
    assert sorted(name for name in left if not name.startswith(".")) == ["best.ckpt", "last.ckpt"]
    assert [name for name in left if name.startswith(".tmp-") and "last" not in name]
    assert study.checkpoint()["global_step"] == STEPS_AN_EPOCH
    go_on(study, undisturbed)


def test_a_damaged_checkpoint_is_named(study, undisturbed):
    path = study.folder() / "checkpoints/last.ckpt"
    path.parent.mkdir(parents=True)
    whole = (undisturbed.folder() / "checkpoints/last.ckpt").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    done = forked(study.arguments("fit", "--ckpt_path", "last"), study.root / "log")
    assert done.wait() == 1
    assert f"riskft: {path}: cannot be read" in done.text
    assert "Traceback" not in done.text


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm(study, undisturbed):
    stopped = forked(study.arguments(), study.root / "stopped", before_step(STEPS_AN_EPOCH + 1, terminate))
    assert stopped.wait() == TERMINATED, stopped.text
    assert "Traceback" not in stopped.text
    assert study.checkpoint()["global_step"] == STEPS_AN_EPOCH
    go_on(study, undisturbed)


def test_sigterm_of_two_processes(study):
    """As SLURM and torchrun send it: to both, at whatever point each of them is."""

    def at_different_points(rank: int) -> None:
        if rank == 0:
            before_step(2, terminate)()
            return

        def on_train_batch_end(self: RiskModule, *arguments: Any) -> None:
            if self.global_step == 3:
                terminate()

        RiskModule.on_train_batch_end = on_train_batch_end  # type: ignore[method-assign]

    stopped = ranks(study.arguments(), study.root / "log", at_different_points)
    assert [process.wait(60) for process in stopped] == [TERMINATED] * 2, "\n".join(p.text for p in stopped)
    assert study.checkpoint()["global_step"] == 2  # an epoch of two processes has two steps


def test_paths_of_checkpoints_with_dots(tmp_path: Path):
    path = tmp_path / "a.last.b/epoch=1.5.ckpt"
    checkpoint_io.WholeCheckpointIO().save_checkpoint(
        {"state_dict": {"x": torch.ones(2)}, "pytorch-lightning_version": "2.6"}, path
    )
    assert [file.name for file in path.parent.iterdir()] == ["epoch=1.5.ckpt"]
    content = checkpoint_io.WholeCheckpointIO().load_checkpoint(path, weights_only=True)
    assert torch.equal(content["state_dict"]["x"], torch.ones(2))
