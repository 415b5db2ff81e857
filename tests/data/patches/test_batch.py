"""Batches: their fields, and that Lightning moves and converts what is in them."""

import numpy as np
import pytest
import torch
import torchio as tio
from lightning.fabric.utilities.apply_func import move_data_to_device
from lightning.pytorch.plugins.precision import HalfPrecision
from torch.utils.data import DataLoader

from riskft.data.patches.batch import PatchBatch, VolumeBatch, patch_batch, volume_batch, volume_loader

SHAPE = (4, 3, 2)
AFFINE = np.diag([1.0, 2.0, 0.7, 1.0])


def subject(number: int, **channels: int) -> tio.Subject:
    images = {
        name: tio.ScalarImage(tensor=torch.rand(count, *SHAPE) + number, affine=AFFINE)
        for name, count in {"image": 2, **channels}.items()
    }
    label = tio.LabelMap(tensor=torch.full((1, *SHAPE), number, dtype=torch.uint8), affine=AFFINE)
    return tio.Subject(**images, label=label, foreground_fraction=torch.tensor(number / 4), name=f"p{number}")


def test_patches_are_stacked_in_order():
    subjects = [subject(number, weight=1, eep=3) for number in range(3)]
    batch = patch_batch(subjects)
    assert batch.subjects == ("p0", "p1", "p2")
    for index, given in enumerate(subjects):
        for name, field in (("image", "image"), ("label", "label"), ("weight", "weight"), ("eep", "eep")):
            assert torch.equal(getattr(batch, field)[index], given[name].data)
    assert batch.foreground_fraction.tolist() == [0, 0.25, 0.5]
    assert batch.label.dtype == torch.uint8


def test_maps_are_not_needed():
    batch = patch_batch([subject(0), subject(1)])
    assert (batch.weight, batch.eep) == (None, None)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_volumes_are_served_in_the_given_order(workers):
    subjects = [subject(number) for number in range(3)]
    subjects[2].remove_image("label")
    second, first = volume_loader(subjects, [2, 0], workers)
    assert (second.subject, second.label, first.subject) == ("p2", None, "p0")
    assert torch.equal(first.image[0], subjects[0]["image"].data)
    assert torch.equal(first.label[0], subjects[0]["label"].data)
    np.testing.assert_array_equal(first.affine, AFFINE)


@pytest.mark.parametrize("kind", [PatchBatch, VolumeBatch])
def test_lightning_moves_and_converts_the_tensors_alone(kind):
    batch = patch_batch([subject(1, weight=1)]) if kind is PatchBatch else volume_batch([subject(1)])
    moved = move_data_to_device(batch, torch.device("meta"))
    halved = HalfPrecision("bf16-true").convert_input(batch)
    for found in (moved, halved):
        assert type(found) is kind
        assert found[0] == batch[0]  # the names
    assert moved.image.device.type == moved.label.device.type == "meta"
    assert (halved.image.dtype, halved.label.dtype) == (torch.bfloat16, torch.uint8)
    if kind is VolumeBatch:
        assert moved.affine is batch.affine
        assert halved.affine.dtype == np.float64


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU to pin memory for")
def test_memory_is_pinned():
    (batch,) = DataLoader([subject(0)], collate_fn=patch_batch, pin_memory=True)
    assert batch.image.is_pinned()
    assert batch.subjects == ("p0",)
