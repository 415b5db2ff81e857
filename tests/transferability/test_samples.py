"""Voxel samples: how many of each class, what they stand for, and the file that holds them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from riskft.data.labels import IGNORE_INDEX
from riskft.errors import InputError
from riskft.transferability.samples import VoxelSample, chosen_voxels, read_sample, write_sample


def drawn(target: torch.Tensor, per_class: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return chosen_voxels(target, per_class, torch.Generator().manual_seed(seed))


def test_each_class_that_occurs_gives_voxels_and_ignored_ones_are_never_drawn():
    target = torch.zeros(8, 8, 8, dtype=torch.uint8)
    target[:4, 0, 0] = 3  # 4 voxels, fewer than wanted
    target[:, 4:6] = 1  # 128
    target[:, 6:] = IGNORE_INDEX  # 128
    indices, weights = drawn(target, 10)
    classes = target.flatten()[indices]
    assert torch.bincount(classes.long()).tolist() == [10, 10, 0, 4]
    assert len(indices.unique()) == len(indices)
    assert weights[classes == 0].tolist() == pytest.approx([25.2] * 10)  # 512 - 4 - 128 - 128 = 252
    assert weights[classes == 1].tolist() == pytest.approx([12.8] * 10)
    assert weights[classes == 3].tolist() == [1.0] * 4
    assert float(weights.sum()) == pytest.approx(512 - 128)
    assert (indices.dtype, weights.dtype) == (torch.int64, torch.float64)


def test_draws_follow_the_generator_alone_and_are_even():
    target = torch.zeros(20, dtype=torch.uint8)
    assert torch.equal(drawn(target, 5, 1)[0], drawn(target, 5, 1)[0])
    counts = torch.bincount(torch.cat([drawn(target, 5, seed)[0] for seed in range(2000)]), minlength=20)
    assert float(counts.min()) > 420  # 500 expected, standard deviation 19
    assert float(counts.max()) < 580


def test_a_case_of_which_all_is_ignored_gives_an_empty_sample():
    indices, weights = drawn(torch.full((3, 3, 3), IGNORE_INDEX, dtype=torch.uint8), 10)
    assert indices.shape == weights.shape == (0,)


@pytest.mark.parametrize("has_head", [True, False])
def test_a_sample_survives_its_file(tmp_path: Path, has_head: bool):
    features = {"encoder": torch.randn(6, 3), "decoder": torch.randn(6, 5)}
    probabilities = torch.rand(6, 2) if has_head else None
    sample = VoxelSample("Ü 1/2", torch.arange(6), torch.rand(6, dtype=torch.float64), probabilities, features)
    write_sample(tmp_path / "new" / "one.npz", sample)
    back = read_sample(tmp_path / "new" / "one.npz")
    assert back.subject == sample.subject
    assert list(back.features) == ["encoder", "decoder"]
    pairs = [(back.classes, sample.classes), (back.weights, sample.weights)]
    pairs += [(back.features[depth], values) for depth, values in features.items()]
    if probabilities is None or back.probabilities is None:
        assert back.probabilities is probabilities
    else:
        pairs.append((back.probabilities, probabilities))
    assert all(torch.equal(one, other) and one.dtype == other.dtype for one, other in pairs)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["one.npz"]


def test_files_that_are_not_samples_are_refused_with_their_name(tmp_path: Path):
    good = tmp_path / "good.npz"
    write_sample(good, VoxelSample("a", torch.arange(4), torch.ones(4, dtype=torch.float64)))
    (tmp_path / "half.npz").write_bytes(good.read_bytes()[:200])
    np.save(tmp_path / "array.npy", np.zeros(3))
    np.savez(tmp_path / "pickled.npz", subject=np.array("a"), classes=np.array([{}], dtype=object))
    np.savez(tmp_path / "uneven.npz", subject=np.array("a"), classes=np.arange(3), weights=np.ones(2))
    np.savez(tmp_path / "other.npz", values=np.zeros(3))
    (tmp_path / "empty.npz").touch()
    for name in ("half.npz", "array.npy", "pickled.npz", "uneven.npz", "other.npz", "empty.npz", "missing.npz"):
        with pytest.raises(InputError, match=name):
            read_sample(tmp_path / name)


def test_voxels_must_be_as_many_everywhere():
    with pytest.raises(ValueError, match=r"Expected 3 voxels as in `classes`, but got \[2\]"):
        VoxelSample("a", torch.arange(3), torch.ones(3), None, {"encoder": torch.ones(2, 4)})
