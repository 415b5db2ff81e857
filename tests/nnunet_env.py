"""nnU-Net in an environment of its own, for its dependencies do not fit riskft's."""

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import peers
import pytest
from scipy.ndimage import gaussian_filter

from riskft.files import write_text

CHANNELS = ("t1", "t2")

TRAINER = '''
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class TinyTrainer(nnUNetTrainer):
    """One short epoch, and no predictions after it."""

    def __init__(self, plans, configuration, fold, dataset_json, device=torch.device("cpu")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = 1
        self.num_iterations_per_epoch = 1
        self.num_val_iterations_per_epoch = 1

    def perform_actual_validation(self, save_probabilities=False):
        """Nothing of it is needed."""
'''

# what nnU-Net's own predictor makes of a case: the preprocessed volume, a patch of it, and the patch's logits
PREDICT = """
import sys
import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

folder, out, *images = sys.argv[1:]
predictor = nnUNetPredictor(use_mirroring=False, perform_everything_on_device=False, device=torch.device("cpu"))
predictor.initialize_from_trained_model_folder(folder, use_folds=(0,), checkpoint_name="checkpoint_final.pth")
plans, configuration = predictor.plans_manager, predictor.configuration_manager
preprocessor = configuration.preprocessor_class(verbose=False)
volume = preprocessor.run_case(images, None, plans, configuration, predictor.dataset_json)[0]
predictor.network.load_state_dict(predictor.list_of_parameters[0])
predictor.network.eval()
patch = np.random.default_rng(0).normal(size=(volume.shape[0], *configuration.patch_size)).astype(np.float32)
seen = tuple(slice(0, min(size, own)) for size, own in zip(configuration.patch_size, volume.shape[1:]))
patch[(slice(None), *seen)] = volume[(slice(None), *seen)]
with torch.no_grad():
    logits = predictor.network(torch.from_numpy(patch)[None])[0].numpy()
np.savez(out, volume=np.asarray(volume), patch=patch, logits=logits)
"""


# runs nnU-Net's commands, or scripts, one after the other in one process, whose pools are forked: each new process
# would import everything again
COMMANDS = """
import json, multiprocessing, os, sys
from importlib.metadata import entry_points
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor

# otherwise a hundred million voxels, for statistics that only CT needs
DatasetFingerprintExtractor.num_foreground_voxels_for_intensitystats = property(lambda self: 1e5, lambda *given: None)
forking = multiprocessing.get_context("fork")
multiprocessing.get_context = lambda method=None: forking
scripts = {script.name: script for script in entry_points(group="console_scripts")}
for command in json.loads(sys.argv[1]):
    sys.argv = command
    # augmentation in the training process itself; the planner does not accept 0
    os.environ["nnUNet_n_proc_DA"] = "0" if command[0] == "nnUNetv2_train" else "1"
    if command[0] in scripts:
        scripts[command[0]].load()()
    else:
        exec(command[0])
"""


def nnunet_python() -> Path:
    """Returns the Python of an environment with nnU-Net; makes one, once for all test runs on the machine.

    ``RISKFT_NNUNET_PYTHON`` names an existing one. Skips the test where pip cannot install it.
    """
    if given := os.environ.get("RISKFT_NNUNET_PYTHON"):
        return Path(given)
    # the environment sees this Python's packages, so each Python has its own
    folder = Path(tempfile.gettempdir()) / f"riskft-peers-{hashlib.sha256(sys.prefix.encode()).hexdigest()[:8]}"
    with Path(f"{folder}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run side by side
        try:
            return peers.make(folder)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"pip cannot install nnU-Net: {error}")


def write_raw(folder: Path, channels, labels, affine, shape=(14, 30, 26), subjects=8, inverted=False) -> Path:
    """Writes a data set of blobs with a bright core in nnU-Net's raw layout: labels 1 (shell) and 2 (core)."""
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for number in range(subjects):
        rng = np.random.default_rng(number + 100 * inverted)
        grid = np.stack(np.meshgrid(*(np.arange(size) for size in shape), indexing="ij"))
        centre = np.array(shape)[:, None, None, None] / 2 + rng.uniform(-1, 1, size=(3, 1, 1, 1))
        distance = np.sqrt((((grid - centre) / np.array([4, 8, 7]).reshape(3, 1, 1, 1)) ** 2).sum(0))
        distance += gaussian_filter(rng.normal(size=shape), 2)
        label = ((distance < 1).astype(np.uint8) + (distance < 0.5)).astype(np.uint8)
        brain = distance < 1.6
        t1 = brain * (100 + 60.0 * (label >= 1) + 60 * (label == 2) + rng.normal(0, 8, shape)).clip(1)
        t1 = brain * (300 - t1).clip(1) if inverted else t1
        for channel, image in zip(range(len(channels)), (t1, brain * (400 - t1).clip(1)), strict=False):
            path = folder / "imagesTr" / f"case{number}_{channel:04d}.nii.gz"
            nib.save(nib.Nifti1Image(image.astype(np.float32), affine), path)
        nib.save(nib.Nifti1Image(label, affine), folder / "labelsTr" / f"case{number}.nii.gz")
    description = {
        "channel_names": {str(index): name for index, name in enumerate(channels)},
        "labels": labels,
        "numTraining": subjects,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


class Nnunet:
    """nnU-Net's own commands on folders below one root."""

    def __init__(self, python: Path, root: Path) -> None:
        self.python, self.root = python, root
        write_text(root / "trainers/tiny_trainer.py", TRAINER)
        self.environment = {
            **peers.environment(),
            "nnUNet_raw": str(root / "raw"),
            "nnUNet_preprocessed": str(root / "preprocessed"),
            "nnUNet_results": str(root / "results"),
            "nnUNet_extTrainer": str(root / "trainers"),
            "nnUNet_def_n_proc": "1",
            "nnUNet_compile": "f",
            "CUDA_VISIBLE_DEVICES": "",
        }

    def train_and_predict(self, dataset: str, images: list[Path]) -> tuple[Path, dict[str, np.ndarray]]:
        """Plans and trains one fold of a raw data set, and applies it to a case.

        Returns the model's folder, and ``volume`` (C, *spatial), ``patch`` and ``logits``, all in nnU-Net's axis order.
        """
        number = str(int(dataset[7:10]))
        model = self.root / "results" / dataset / "TinyTrainer__nnUNetPlans__3d_fullres"
        out = self.root / "predicted.npz"
        commands = [
            ["nnUNetv2_plan_and_preprocess", "-d", number, "-c", "3d_fullres", "-np", "1", "-npfp", "1"],
            ["nnUNetv2_train", number, "3d_fullres", "0", "-tr", "TinyTrainer", "-device", "cpu"],
            [PREDICT, str(model), str(out), *map(str, images)],
        ]
        done = subprocess.run(
            [str(self.python), "-c", COMMANDS, json.dumps(commands)],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
        return model, dict(np.load(out))
