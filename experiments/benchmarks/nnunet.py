"""Fine-tunes the same nnU-Net with riskft and with nnU-Net v2 itself, from raw scans to the scores of the validation.

nnU-Net trains the source for some steps on generated scans, with its own plans but fewer channels and a smaller batch,
so that a CPU can do it. Both then fine-tune it on scans of another contrast, with the same patch size, batch size,
number of steps, cases and optimizer, and segment the same whole validation cases: nnU-Net with ``-pretrained_weights``,
riskft with ``configs/method/riskft.yaml`` (phase 1 with inverted images too, and a refreshed map). nnU-Net augments as
by default, riskft as in ``configs/data/augment.yaml``. Imports, preprocessing, phase 1 and validation are counted. The
network is small and the run short, so everything but the network takes a larger share than in practice.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import peers
from paired import Row, cpu_time, main, row
from scipy.ndimage import gaussian_filter

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SCRIPT = Path(__file__).with_name("nnunet_peer.py")
CASES, PATCHES, EPOCHS = 10, 4, 3  # four fifths of the cases are for training, in batches of two patches
SHAPE = 40, 56, 40  # about the size of a hippocampus


def write_raw(folder: Path, cases: int, inverted: bool) -> None:
    """Writes scans of a blob with a core in nnU-Net's raw layout, bright in one contrast and dark in the other."""
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    grid = np.stack(np.meshgrid(*(np.arange(size) for size in SHAPE), indexing="ij"))
    for number in range(cases):
        rng = np.random.default_rng(number + 1000 * inverted)
        centre = np.array(SHAPE)[:, None, None, None] / 2 + rng.uniform(-4, 4, size=(3, 1, 1, 1))
        radii = np.array(SHAPE)[:, None, None, None] * rng.uniform(0.25, 0.4)
        distance = np.sqrt((((grid - centre) / radii) ** 2).sum(0)) + 3 * gaussian_filter(rng.normal(size=SHAPE), 3)
        label = (distance < 1).astype(np.uint8) + (distance < 0.6).astype(np.uint8)
        image = 100 + (-30.0 if inverted else 30.0) * label + rng.normal(0, 10, SHAPE)
        for path, volume in (("imagesTr/{}_0000", image.astype(np.float32)), ("labelsTr/{}", label)):
            nib.save(nib.Nifti1Image(volume, np.eye(4)), folder / f"{path.format(f'case{number:02d}')}.nii.gz")
    description = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "shell": 1, "core": 2},
        "numTraining": cases,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description))


class Study:
    """Data, source and working folders below one root."""

    def __init__(self, root: Path, python: Path, smoke: bool) -> None:
        self.root, self.python = root, python
        self.cases, self.epochs = (5, 1) if smoke else (CASES, EPOCHS)
        self.steps = self.cases * 4 // 5 * PATCHES * self.epochs // 2
        write_raw(root / "raw/Dataset001_Source", self.cases, inverted=False)
        write_raw(root / "raw/Dataset002_Target", self.cases, inverted=True)
        (root / "trainers").mkdir()
        shutil.copy(SCRIPT, root / "trainers")
        self.environment = {
            **peers.environment(),
            **{f"nnUNet_{part}": str(root / part) for part in ("raw", "preprocessed", "results")},
            "nnUNet_extTrainer": str(root / "trainers"),
            "nnUNet_n_proc_DA": "0",  # augmentation in the training process itself, as with data.num_workers: 0
            "nnUNet_def_n_proc": "1",
            "nnUNet_compile": "f",
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
        }
        self._nnunet("2" if smoke else "20")
        (self.source,) = (root / "results/Dataset001_Source").iterdir()
        self.results = root / "results/Dataset002_Target"

    def peer(self) -> None:
        """Fine-tunes with nnU-Net."""
        for folder in (self.results, self.root / "preprocessed/Dataset002_Target"):
            shutil.rmtree(folder, ignore_errors=True)
        self._nnunet(str(self.steps), str(self.source / "fold_0/checkpoint_final.pth"))

    def ours(self) -> None:
        """Fine-tunes with riskft."""
        for folder in ("cache", "run"):
            shutil.rmtree(self.root / folder, ignore_errors=True)
        configs = ["data/nnunet", "data/augment", "method/riskft", "model/sgd", "trainer/cpu"]
        options = {
            "data.reader.init_args.root": self.root / "raw/Dataset002_Target",
            "data.reader.init_args.fold": 0,
            "data.reader.init_args.splits": self.root / "preprocessed/Dataset002_Target",
            "data.split": "riskft.ReaderSplit",
            "data.labels.classes": "{shell: [1], core: [2]}",
            "data.patches_per_volume": PATCHES,
            "data.num_workers": 0,
            "data.cache_dir": self.root / "cache",
            "model.source.checkpoint": self.source,
            "trainer.max_epochs": self.epochs,
            "trainer.check_val_every_n_epoch": self.epochs,
            "run.folder": self.root / "run",
            "wandb.enabled": "false",
        }
        command = [sys.executable, "-m", "riskft.cli", "fit"]
        command += [word for name in configs for word in ("--config", str(CONFIGS / f"{name}.yaml"))]
        command += [word for name, value in options.items() for word in (f"--{name}", str(value))]
        run(command, {**os.environ, "OMP_NUM_THREADS": "1"})

    def _nnunet(self, *arguments: str) -> None:
        run([str(self.python), str(SCRIPT), *arguments], self.environment)


def run(command: list[str], environment: dict[str, str]) -> None:
    """Runs a command; prints its output and ends if it fails."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-5000:]}")


def timed(call: Callable[[], None]) -> tuple[float, float]:
    """Returns the CPU time and the wall time of a call in s."""
    start = cpu_time(), time.monotonic()
    call()
    return cpu_time() - start[0], time.monotonic() - start[1]


def rows(options: argparse.Namespace) -> Iterator[Row]:
    python = peers.python()
    if python is None:
        print("nnU-Net is not installed (experiments/benchmarks/peers.py installs it): no rows")
        return
    with tempfile.TemporaryDirectory() as folder:
        study = Study(Path(folder), python, options.smoke)
        peer, ours = timed(study.peer), timed(study.ours)
    what = f"fine-tuning an nnU-Net, {study.steps} steps"
    for index, unit in enumerate(("s CPU", "s")):
        yield row(what, "nnU-Net v2 itself", unit, [ours[index]], [peer[index]], aim=1.0)


if __name__ == "__main__":
    main("nnunet", rows)
