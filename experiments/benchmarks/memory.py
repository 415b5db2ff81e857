"""Measures the resident memory of phase 1 and of an epoch with few and with many volumes: it must not grow.

    python experiments/benchmarks/memory.py OUT_DIR [--cases 10 40] [--shape 128 144 112] [--workers 2] [--glibc]

Writes cohorts of noise with two labels into OUT_DIR, runs the command line on them on the CPU, each time in a fork of
this process, and adds up the resident memory (VmRSS) of the fork and its children every 50 ms. Each number is the
highest sum. Exits with 1 if the larger number of volumes needs over 15 % (--limit) more than the smaller one. Linux
only.

With --glibc it measures what users get. Without, glibc returns freed blocks above 1 MB at once. This slows training
down, but shows what riskft itself holds.
"""

import argparse
import contextlib
import ctypes
import json
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.networks.nets import UNet

import riskft.build  # which each fork would import
import riskft.cli

#: Patches held in memory: at most what the smaller cohort gives in an epoch, so that the queue makes no difference.
QUEUE = 32
#: A parameter of mallopt(3).
M_MMAP_THRESHOLD = -3


def write_cohort(folder: Path, cases: int, shape: Sequence[int]) -> Path:
    """Writes training cases, one case for validation and one for test; returns the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    splits = ["train"] * cases + ["val", "test"]
    lines = ["subject,split,t1,label"]
    for number, split in enumerate(splits):
        rng = np.random.default_rng(number)
        label = np.zeros(shape, np.uint8)
        middle = [slice(edge // 4, edge // 2) for edge in shape]
        label[tuple(middle)] = 1
        image = rng.normal(100 + 50.0 * label, 10, shape).astype(np.float32)
        for name, volume in (("t1", image), ("label", label)):
            nib.save(nib.Nifti1Image(volume, np.diag([1.0, 1.2, 1.5, 1.0])), folder / f"case{number:02d}_{name}.nii.gz")
        lines.append(f"case{number:02d},{split},case{number:02d}_t1.nii.gz,case{number:02d}_label.nii.gz")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder / "manifest.csv"


def config(folder: Path, manifest: Path, patch: int, workers: int) -> Path:
    """Writes the config of a small network; returns its path."""
    network = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, "channels": [4, 8], "strides": [2]}
    torch.manual_seed(0)
    torch.save(UNet(**network).state_dict(), folder / "source.pt")
    inferer = {"roi_size": [patch] * 3, "sw_batch_size": 1, "overlap": 0.0}
    content = {
        "run": {"folder": str(folder / "run"), "overwrite": True},
        "wandb": {"enabled": False},
        "data": {
            "reader": {"class_path": "riskft.ManifestReader", "init_args": {"csv": str(manifest)}},
            "modalities": ["t1"],
            "labels": {"classes": {"box": [1]}},
            "split": {"class_path": "riskft.ReaderSplit"},
            "cache_dir": str(folder / "cache"),
            "patch_size": [patch] * 3,
            "patches_per_volume": 4,
            "queue_length": QUEUE,
            "num_workers": workers,
        },
        "model": {
            "source": {
                "network": {"class_path": "monai.networks.nets.UNet", "init_args": network},
                "checkpoint": str(folder / "source.pt"),
            },
            "inferer": {"class_path": "monai.inferers.SlidingWindowInferer", "init_args": inferer},
        },
        "trainer": {
            "accelerator": "cpu",
            "devices": 1,
            "max_epochs": 1,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "callbacks": [{"class_path": "riskft.RiskMapCallback"}],
        },
    }
    (folder / "config.yaml").write_text(json.dumps(content))  # JSON is YAML too
    return folder / "config.yaml"


def resident(pid: int) -> int:
    """Returns the resident memory in kB of a process and its descendants; 0 if it has ended."""
    total = 0
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text()
        total += next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")), 0)
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += sum(resident(int(child)) for child in (task / "children").read_text().split())
    return total


def peak(command: Sequence[str], glibc: bool) -> float:
    """Runs a riskft command in a fork of this process; returns its highest resident memory in MB."""
    with tempfile.TemporaryFile("w+") as log:
        process = multiprocessing.get_context("fork").Process(target=run, args=(command, glibc, log.fileno()))
        process.start()
        highest = before = 0
        while process.is_alive():
            now = resident(process.pid or 0)
            highest, before = max(highest, min(before, now)), now  # a new fork shows its parent's memory for a moment
            time.sleep(0.05)
        if process.exitcode:
            log.seek(0)
            raise SystemExit(f"riskft {command[0]} failed:\n{log.read()[-3000:]}")
    return highest / 1000


def run(command: Sequence[str], glibc: bool, log: int) -> None:
    """Runs a command with its output in a file, given by its descriptor."""
    for stream in (1, 2):
        os.dup2(log, stream)
    if not glibc:
        os.environ["MALLOC_MMAP_THRESHOLD_"] = str(1 << 20)  # so riskft leaves glibc alone, which no longer reads it
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 20)
    riskft.cli.main(command)


def measure(folder: Path, cases: int, shape: Sequence[int], patch: int, workers: int, glibc: bool) -> dict[str, float]:
    """Returns the peak of each part in MB."""
    shutil.rmtree(folder, ignore_errors=True)
    options = ["--config", str(config(folder, write_cohort(folder, cases, shape), patch, workers))]
    maps = ["riskmap", *options, "--out", str(folder / "maps"), "--overwrite", "true"]
    found = {"preprocessing and phase 1": peak(maps, glibc)}
    shutil.rmtree(folder / "cache/risk")
    found["phase 1"] = peak(maps, glibc)
    found["an epoch and its validation"] = peak(["fit", *options], glibc)
    shutil.rmtree(folder)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Compare the resident memory with few and with many volumes.")
    parser.add_argument("out_dir", type=Path, metavar="OUT_DIR", help="folder for the cohorts; emptied afterwards")
    parser.add_argument("--cases", type=int, nargs=2, default=[10, 40], help="training volumes of the two cohorts")
    parser.add_argument("--shape", type=int, nargs=3, default=[128, 144, 112], help="voxels of a volume")
    parser.add_argument("--patch", type=int, default=32, help="edge of a training patch")
    parser.add_argument("--workers", type=int, default=2, help="data.num_workers")
    parser.add_argument("--limit", type=float, default=1.15, help="highest ratio that passes")
    parser.add_argument("--glibc", action="store_true", help="keep glibc's default settings, as users do")
    options = parser.parse_args(arguments)
    few, many = options.cases
    if 4 * few < QUEUE:
        parser.error(f"the smaller cohort must fill the queue: --cases {few} is below {QUEUE // 4}")
    found = [
        measure(options.out_dir / f"cases{cases}", cases, options.shape, options.patch, options.workers, options.glibc)
        for cases in (few, many)
    ]
    print(f"| resident memory, MB | {few} volumes | {many} volumes | ratio |\n|---|---|---|---|")
    ratios = {part: found[1][part] / found[0][part] for part in found[0]}
    for part, ratio in ratios.items():
        print(f"| {part} | {found[0][part]:.0f} | {found[1][part]:.0f} | {ratio:.3f} |")
    if max(ratios.values()) > options.limit:
        raise SystemExit(f"more than {options.limit} times the memory")


if __name__ == "__main__":
    main()
