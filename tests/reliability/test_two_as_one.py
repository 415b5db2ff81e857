"""Two processes compute what one does: maps, gradients, scores and files, however they are started."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torchio as tio
from forked_runs import Forked, Study, forked, free_port, ranks
from monai.inferers import SlidingWindowInferer
from monai.networks.nets import UNet
from torch.nn.parallel import DistributedDataParallel
from warm_python import warm_python

from riskft.data.patches.batch import PatchBatch, patch_batch
from riskft.losses.weighted import RiskWeightedLoss
from riskft.source.source import Source
from riskft.training.module import RiskModule

pytestmark = pytest.mark.slow
EDGE = 8


@pytest.fixture(scope="module")
def studies(tmp_path_factory, even_manifest):
    """Four training cases, so that two processes share them evenly, trained by one process and by two."""
    root = tmp_path_factory.mktemp("two")
    one, two = Study(root / "one", even_manifest), Study(root / "two", even_manifest)
    alone = forked(one.arguments(), root / "one.log")
    processes = ranks(two.arguments(), root / "two.log")
    assert [process.wait(90) for process in (alone, *processes)] == [0, 0, 0], alone.text + processes[0].text
    return one, two


def summary(study: Study) -> dict[str, Any]:
    return json.loads((study.folder() / "risk/summary.json").read_text())


def maps(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.nii")}


def test_conditional_and_maps(studies):
    one, two = (summary(study) for study in studies)
    for key in ("joint", "leep", "label_entropy", "class_hardness", "class_weight", "weight_counts"):
        assert one[key] == two[key]
    found = [maps(study.root / "cache/risk") for study in studies]
    assert len(found[0]) == 3 * 5
    assert found[0] == found[1]


def test_files_are_written_once(studies):
    """By the first process: nothing of a second one beside it, nothing moved aside as an earlier run's."""
    one, two = (
        sorted(str(path.relative_to(study.folder())) for path in study.folder().rglob("*") if path.is_file())
        for study in studies
    )
    assert one == two
    assert "config.yaml" in one
    assert "adaptation.csv" in one
    assert "metrics.csv" in one
    assert not [name for name in one if ".1." in name or name.endswith("-v1.ckpt")]
    # half as many steps, for each process takes as many patches in one
    assert [study.checkpoint()["global_step"] for study in studies] == [12, 6]


def test_test_cases_are_scored_once_and_as_by_one_process(studies):
    one = studies[0]
    config = ["test", "--config", str(one.folder() / "config.yaml"), "--ckpt_path", "last"]
    scores = []
    for start in (lambda: [forked(config, one.root / "log")], lambda: ranks(config, one.root / "log")):
        assert [process.wait() for process in start()] in ([0], [0, 0])
        scores.append((one.folder() / "cases.csv").read_text())
    assert scores[0] == scores[1]
    assert [line.split(",")[0] for line in scores[0].splitlines()[1:]] == ["case05", "case05", "case06", "case06"]
    assert not (one.folder() / "cases.1.csv").exists()


def test_predictions_and_maps_as_files(studies):
    one = studies[0]
    written = []
    for number in (1, 2):
        found: dict[str, bytes] = {}
        for command in ("predict", "riskmap"):
            out = one.root / f"{command}{number}"
            checkpoint = ["--ckpt_path", "last"] if command == "predict" else []
            options = [command, "--config", str(one.folder() / "config.yaml"), "--out", str(out), *checkpoint]
            processes = (
                [forked(options, one.root / "log")] if number == 1 else ranks(options, one.root / f"log{number}")
            )
            assert [process.wait() for process in processes] == [0] * number, processes[0].text
            found |= {f"{command}/{path.name}": path.read_bytes() for path in out.iterdir() if path.is_file()}
        written.append(found)
    assert written[0].keys() == written[1].keys()
    # two test cases; weight and hardness of four training cases, their table, and how the target would start
    assert len(written[0]) == 2 + 2 * 4 + 2
    for name, content in written[0].items():
        assert written[1][name] == content, name


def test_torchrun(studies, tmp_path):
    """The real launcher, with processes of its own; plain start and `fabric run` are tested with the command line."""
    study = Study(tmp_path, studies[0].manifest)
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "riskft.cli"]
    options = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.max_epochs", "1"]
    with warm_python("fit") as python:
        done = subprocess.run(
            [*start, *study.arguments(), *options],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHON_EXEC": str(python)},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    assert summary(study)["joint"] == summary(studies[0])["joint"]
    assert study.checkpoint()["global_step"] == 2


# -- gradients ---------------------------------------------------------------------------------------------------------


def patches() -> list[tio.Subject]:
    """Four patches whose foreground differs, one without any, one with voxels that do not count."""
    found = []
    for number in range(4):
        generator = torch.Generator().manual_seed(number)
        image = torch.randn(1, EDGE, EDGE + 2, EDGE + 4, generator=generator)
        label = (image > 1 - 0.3 * number).to(torch.uint8) + (image > 1.5).to(torch.uint8)
        if number == 2:
            label.zero_()
        if number == 3:
            label[:, :3] = 255
        weight = 0.5 + 3 * torch.rand(image.shape, generator=generator)
        images = {"image": image, "label": label, "weight": weight}
        found.append(
            tio.Subject(
                {key: tio.ScalarImage(tensor=tensor) for key, tensor in images.items()},
                foreground_fraction=torch.tensor(0.05 * (number + 1)),
                name=f"p{number}",
            )
        )
    return found


class Step(torch.nn.Module):
    """The module's training step, as DDP wraps it."""

    def __init__(self, divisor: Any) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.module = RiskModule(
            Source(UNet(3, 1, 3, (4, 8), (2,))),
            class_names=["background", "shell", "core"],
            in_channels=1,
            loss=RiskWeightedLoss(divisor),
            inferer=SlidingWindowInferer(EDGE),
        )
        self.module.log = lambda *arguments, **options: None  # type: ignore[method-assign]

    def forward(self, batch: PatchBatch) -> torch.Tensor:
        return self.module.training_step(batch, 0)

    def gradients(self) -> dict[str, Any]:
        return {name: value.grad.numpy() for name, value in self.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("divisor", ["foreground", "voxels"])
def test_gradients_of_two_by_two_patches_are_those_of_four(tmp_path, divisor):
    port = free_port()

    def work(rank: int) -> Any:
        def action() -> None:
            dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
            step = Step(divisor)
            wrapped = DistributedDataParallel(step)  # whose hooks live as long as it does
            wrapped(patch_batch(patches()[rank::2])).backward()
            np.savez(tmp_path / f"{rank}.npz", **step.gradients())

        return action

    processes = [Forked(work(rank), tmp_path / f"log.{rank}", rank, 2, port) for rank in range(2)]
    alone = Step(divisor)
    alone(patch_batch(patches())).backward()
    assert [process.wait() for process in processes] == [0, 0], processes[0].text
    expected = alone.gradients()
    assert len(expected) == len(list(alone.parameters()))
    assert max(np.abs(value).max() for value in expected.values()) > 1e-2
    for rank in range(2):
        got = np.load(tmp_path / f"{rank}.npz")
        assert set(got) == set(expected)
        for name, value in expected.items():
            np.testing.assert_allclose(got[name], value, atol=1e-5, rtol=0, err_msg=name)
