"""Measures the CPU time until a command starts its work, each in a process of its own.

Usage: ``python experiments/benchmarks/startup.py [--out FOLDER] [--smoke]``. The limits are meant for a machine that
imports torch in 1.9 s; each is scaled by the time of that import, measured next to it. The limit of the second ``fit``
is the time of its imports plus 2 s.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import paired
import yaml

ROOT = Path(__file__).resolve().parents[2]
METHODS = ("ce", "distilled", "focal", "paper", "random_head", "refreshed", "riskft", "scratch", "topk", "vanilla")
TORCH_SECONDS = 1.9
LIBRARIES = "import torch, lightning.pytorch, monai, torchio"
IMPORTS = """
import sys
from riskft.commands.imports import quick_imports
with quick_imports(sys.argv[1:]):
    import riskft.build
"""
FIRST_STEP = f"""{IMPORTS}
import os
from riskft.cli import main
from riskft.training.module import RiskModule
RiskModule.training_step = lambda *_: os._exit(0)
main(sys.argv[1:])
"""


def python(*arguments: str) -> None:
    """Runs Python in a process of its own."""
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)


def cpu(*arguments: str) -> float:
    """Returns the CPU time in seconds of Python with these arguments."""
    return paired.seconds(lambda: python(*arguments))


def slowness() -> float:
    """Returns how much slower this machine imports torch than the one that the limits are meant for."""
    return cpu("-c", "import torch") / TORCH_SECONDS


def limited(what: str, limit: float, rounds: int, *arguments: str) -> paired.Row:
    """Returns the row of a command that must take at most ``limit`` seconds, scaled by ``slowness``."""
    return within(what, limit, [(cpu(*arguments), slowness()) for _ in range(rounds)])


def within(what: str, limit: float, timed: Sequence[tuple[float, float]]) -> paired.Row:
    """Returns the row of times that must be at most ``limit`` seconds, each beside its ``slowness``."""
    pairs = [(time, limit * slow) for time, slow in timed]
    return paired.row(what, f"{limit:g} s", "s CPU", *zip(*pairs, strict=True), aim=1)


def write_cohort(folder: Path, cases: int) -> Path:
    """Writes a data set of small volumes and returns its manifest."""
    folder.mkdir()
    rows = ["subject,split,t2,label"]
    for number in range(cases):
        label = np.zeros((24, 24, 24), np.uint8)
        label[6:18, 6:18, 6:18], label[10:14, 10:14, 10:14] = 1, 2
        image = label * 50 + np.random.default_rng(number).normal(100, 10, label.shape)
        for name, volume in (("t2", image.astype(np.float32)), ("label", label)):
            nib.save(nib.Nifti1Image(volume, np.eye(4)), folder / f"{number}_{name}.nii.gz")
        split = "train" if number < cases - 2 else "val"
        rows.append(f"{number},{split},{number}_t2.nii.gz,{number}_label.nii.gz")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder / "manifest.csv"


def write_source(path: Path) -> None:
    """Writes a source network like that of the config ``tests/cli/tiny.yaml``."""
    python(
        "-c",
        f"""
import torch
from monai.networks.nets import UNet
torch.save(UNet(3, 1, 2, (4, 8), (2,)).state_dict(), {str(path)!r})
""",
    )


def write_sweep(path: Path, methods: Sequence[str], sizes: int, seeds: int) -> None:
    """Writes a sweep of methods x numbers of training cases x seeds."""
    parameters = {
        "config.tiny": {"value": "tests/cli/tiny.yaml"},
        "config.method": {"values": [f"configs/method/{method}.yaml" for method in methods]},
        "run.root": {"value": str(path.parent / "runs")},
        "data.train_limit": {"values": list(range(1, sizes + 1))},
        "seed_everything": {"values": list(range(seeds))},
    }
    path.write_text(yaml.safe_dump({"name": "many", "parameters": parameters}))


def rows(options: argparse.Namespace) -> Iterator[paired.Row]:
    """Yields the rows."""
    rounds = 1 if options.smoke else 3
    python("-m", "riskft", "compare", "--help")  # writes the bytecode
    yield limited("riskft --version", 0.3, rounds, "-m", "riskft", "--version")
    yield limited("riskft --help", 1.0, rounds, "-m", "riskft", "--help")
    yield limited("riskft compare --help", 1.5, rounds, "-m", "riskft", "compare", "--help")
    if options.smoke:  # the others import torch: seconds each
        return
    python("-c", IMPORTS)  # writes the bytecode
    timed = [(cpu("-c", IMPORTS), cpu("-c", LIBRARIES), slowness()) for _ in range(rounds)]
    ours, libraries, slow = zip(*timed, strict=True)
    yield within("imports of fit", 6.0, list(zip(ours, slow, strict=True)))
    yield paired.row("imports of fit", LIBRARIES, "s CPU", ours, libraries)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_sweep(folder / "many.yaml", METHODS, 10, 5)
        yield limited("sweep, printing 500 runs", 3.0, 2, "-m", "riskft", "sweep", str(folder / "many.yaml"))
        write_source(folder / "source.pt")
        manifest = write_cohort(folder / "cohort", 40)
        fit = [
            *("fit", "--config", "tests/cli/tiny.yaml", "--config", "configs/method/riskft.yaml"),
            *("--data.reader.init_args.csv", str(manifest), "--data.cache_dir", str(folder / "cache")),
            *("--model.source.checkpoint", str(folder / "source.pt"), "--run.root", str(folder / "runs")),
            *("--run.overwrite", "true"),
        ]
        python("-c", FIRST_STEP, *fit)  # the first fit fills the cache
        pairs = [(cpu("-c", FIRST_STEP, *fit), cpu("-c", IMPORTS, *fit) + 2 * slowness()) for _ in range(2)]
        what = "second fit on 40 cached cases, start to first step, with W&B"
        yield paired.row(what, "its imports + 2 s", "s CPU", *zip(*pairs, strict=True), aim=1)


if __name__ == "__main__":
    paired.main("startup", rows)
