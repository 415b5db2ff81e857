"""Does nnU-Net v2's part of ``nnunet.py``, in the environment of ``peers.py`` and on one thread.

    python nnunet_peer.py STEPS                           plan, preprocess and train dataset 1
    python nnunet_peer.py STEPS CHECKPOINT                preprocess dataset 2 and fine-tune

Each line runs in one process, which spares nnU-Net the imports of its separate commands. nnU-Net finds the trainer by
its name, in a copy of this file.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import torch
from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess
from nnunetv2.experiment_planning.plans_for_pretraining.move_plans_between_datasets import move_plans_between_datasets
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
from nnunetv2.run.run_training import run_training
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class ShortTrainer(nnUNetTrainer):
    """Trains for one epoch of STEPS steps, validates for a fifth as many, and predicts without mirroring."""

    def initialize(self):
        self.num_epochs = 1
        self.num_iterations_per_epoch = int(os.environ["STEPS"])
        self.num_val_iterations_per_epoch = max(1, self.num_iterations_per_epoch // 5)
        super().initialize()

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self):  # noqa: N802
        found = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        self.inference_allowed_mirroring_axes = None
        return found


def train(dataset: str, plans: str, weights: str | None = None) -> None:
    """Trains fold 0."""
    run_training(dataset, "3d_fullres", 0, "ShortTrainer", plans, weights, device=torch.device("cpu"))


def source() -> None:
    extract_fingerprints([1], num_processes=1)
    os.environ.update(nnUNet_n_proc_DA="1")  # the planner does not accept 0
    plan_experiments([1])
    os.environ.update(nnUNet_n_proc_DA="0")
    (path,) = Path(nnUNet_preprocessed).glob("Dataset001_*/nnUNetPlans.json")
    plans = json.loads(path.read_text())
    full = plans["configurations"]["3d_fullres"]
    full["batch_size"] = 2
    options = full["architecture"]["arch_kwargs"]
    options["features_per_stage"] = [features // 4 for features in options["features_per_stage"]]  # for a CPU
    path.write_text(json.dumps(plans))
    preprocess([1], "nnUNetPlans", configurations=("3d_fullres",), num_processes=(1,))
    train("1", "nnUNetPlans")


def tune(checkpoint: str) -> None:
    extract_fingerprints([2], num_processes=1, clean=True)
    move_plans_between_datasets(1, 2, "nnUNetPlans", "sourcePlans")
    (description,) = Path(nnUNet_raw).glob("Dataset002_*/dataset.json")
    shutil.copy(description, Path(nnUNet_preprocessed, description.parent.name))  # otherwise the planner does this
    preprocess([2], "sourcePlans", configurations=("3d_fullres",), num_processes=(1,))
    train("2", "sourcePlans", checkpoint)


if __name__ == "__main__":
    os.environ["STEPS"] = sys.argv[1]
    torch.set_num_threads(1)
    if len(sys.argv) == 2:
        source()
    else:
        tune(*sys.argv[2:])
