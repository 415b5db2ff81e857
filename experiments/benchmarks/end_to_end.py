"""Times fine-tuning with risk maps end to end, against a plain training loop.

    python experiments/benchmarks/end_to_end.py [--out FOLDER] [--smoke]

riskft's side is a whole ``Trainer.fit`` from prepared volumes: phase 1 finds its maps in the store, as the second run
of a study does, the network is adapted from the source's checkpoint, and all steps use the weighted loss. The
plain loop trains the same network on the same files with TorchIO's queue and MONAI's DiceCELoss. Neither validates.
"""

import argparse
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
import torchio as tio
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger
from memory import write_cohort
from monai.inferers import SlidingWindowInferer
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from paired import Row, main, paired

from riskft import LabelMap, ManifestReader, ReaderSplit, RiskDataModule, RiskMapCallback, RiskModule, Source

PER_VOLUME, BATCH = 4, 2


def network() -> UNet:
    """Returns a small network of two classes."""
    torch.manual_seed(0)
    return UNet(3, 1, 2, (8, 16, 32), (2, 2), num_res_units=1)


def data(folder: Path, patch: Sequence[int]) -> RiskDataModule:
    """Returns the data, prepared in ``folder``."""
    return RiskDataModule(
        ManifestReader(folder / "manifest.csv"),
        ["t1"],
        LabelMap({"box": [1]}),
        ReaderSplit(),
        cache_dir=str(folder / "cache"),
        patch_size=list(patch),
        patches_per_volume=PER_VOLUME,
        batch_size=BATCH,
    )


class Scores(CSVLogger):
    """Writes the scores but not the hyperparameters, which are objects here and take YAML a second."""

    def log_hyperparams(self, params: object = None) -> None:
        """Does nothing."""


def with_riskft(folder: Path, patch: Sequence[int], steps: int) -> Callable[[], None]:
    """Returns a function that fine-tunes with risk maps."""
    torch.save(network().state_dict(), folder / "source.pt")

    def fit() -> None:
        inferer = SlidingWindowInferer(patch, sw_batch_size=4)
        module = RiskModule(Source(network(), str(folder / "source.pt")), ["background", "box"], 1, inferer=inferer)
        trainer = Trainer(
            accelerator="cpu",
            devices=1,
            max_steps=steps,
            max_epochs=-1,
            limit_val_batches=0,
            default_root_dir=folder,
            logger=Scores(folder / "log", name="", version=""),
            callbacks=[RiskMapCallback()],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        trainer.fit(module, datamodule=data(folder, patch))

    return fit


def plain_loop(folder: Path, patch: Sequence[int], steps: int) -> Callable[[], None]:
    """Returns a function that trains without risk maps; build it once the volumes are prepared."""
    prepared = data(folder, patch)
    prepared.prepare_data()
    prepared.setup("fit")
    subjects = [
        tio.Subject(image=tio.ScalarImage(case.folder / "image.nii"), label=tio.LabelMap(case.folder / "label.nii"))
        for case in prepared.prepared("train")
    ]

    def train() -> None:
        model, loss = network(), DiceCELoss(to_onehot_y=True, softmax=True)
        optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, weight_decay=1e-4)
        sampler = tio.LabelSampler(patch, "label", {0: 0.33, 1: 0.67})
        length = PER_VOLUME * len(subjects)
        queue = tio.Queue(tio.SubjectsDataset(subjects), length, PER_VOLUME, sampler, start_background=False)
        loader, done = tio.SubjectsLoader(queue, batch_size=BATCH), 0
        while done < steps:
            for batch in loader:
                optimizer.zero_grad()
                loss(model(batch["image"]["data"]), batch["label"]["data"]).backward()
                optimizer.step()
                done += 1
                if done == steps:
                    break

    return train


def rows(options: argparse.Namespace) -> Iterator[Row]:
    """Yields the row of the table."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    cases, shape, patch, steps, rounds = (
        (3, (28, 28, 24), (16,) * 3, 6, 1) if options.smoke else (10, (96, 96, 64), (32,) * 3, 200, 3)
    )
    with tempfile.TemporaryDirectory() as folder:
        write_cohort(Path(folder), cases, shape)
        ours = with_riskft(Path(folder), patch, steps)
        ours()  # prepares the volumes and makes the maps
        peer = plain_loop(Path(folder), patch, steps)
        against = "a plain loop with TorchIO Queue and DiceCELoss"
        what = f"fit with risk, {steps} steps, {cases} cases"
        yield paired(what, against, ours, peer, aim=1.05, rounds=rounds, warmup=0)


if __name__ == "__main__":
    main("end_to_end", rows)
