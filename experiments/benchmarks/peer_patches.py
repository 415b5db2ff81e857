"""Serves augmented patches as nnU-Net does, with batchgeneratorsv2; run by patches.py with the Python of the peers.

    PYTHON peer_patches.py FOLDER PATCH PER_VOLUME

FOLDER holds a folder for each case with image.nii and label.nii, which are kept in memory. For each line on standard
input it makes PER_VOLUME patches of each case, and prints the CPU time that this took.
"""

import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

torch.set_num_threads(1)
folder, edge, per_volume = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
cases = []
for case in sorted(folder.iterdir()):
    image, label = (np.asarray(nib.load(case / f"{name}.nii").dataobj) for name in ("image", "label"))
    cases.append((image[None].astype(np.float32), label[None].astype(np.int16), np.argwhere(label > 0)))
turn = -np.pi / 6, np.pi / 6  # as nnU-Net's configure_rotation_dummyDA_mirroring_and_inital_patch_size
size = np.array(get_patch_size([edge] * 3, turn, turn, turn, (0.85, 1.25))).astype(int)
transform = nnUNetTrainer.get_training_transforms([edge] * 3, turn, None, (0, 1, 2), False)
rng = np.random.default_rng(0)


def patch(image, label, foreground):
    """Cuts an enlarged patch, with a probability of 0.33 around foreground, and transforms it."""
    shape = np.array(label.shape[1:])
    place = foreground[rng.integers(len(foreground))] if rng.random() < 0.33 else rng.integers(0, shape)
    start = np.clip(place - size // 2, -(size // 4), np.maximum(shape + size // 4 - size, 0))
    low, high = np.maximum(start, 0), np.minimum(start + size, shape)
    box = (slice(None), *(slice(*ends) for ends in zip(low, high, strict=True)))
    pads = ((0, 0), *zip(low - start, start + size - high, strict=True))
    parts = np.pad(image[box], pads), np.pad(label[box], pads, constant_values=-1)
    return transform(image=torch.from_numpy(parts[0]), segmentation=torch.from_numpy(parts[1]))


print("ready", flush=True)
for _ in sys.stdin:
    begin = time.process_time()
    for number in range(0, per_volume * len(cases), 2):
        pair = [patch(*cases[(number + k) % len(cases)]) for k in range(2)]
        for name in ("image", "segmentation"):
            torch.stack([one[name] for one in pair])
    print(time.process_time() - begin, flush=True)
