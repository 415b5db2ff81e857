"""CC-FV against sets worked out by hand, and scipy's matrix root."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor

from riskft.transferability.consistency import _NEIGHBOURS, _pairs, cc_fv, consistency
from riskft.transferability.samples import CannotScoreError, VoxelSample


def case(features: Tensor, classes: list[int] | Tensor, weights: list[float] | None = None) -> VoxelSample:
    counts = torch.ones(len(features)) if weights is None else torch.tensor(weights)
    return VoxelSample("a", torch.as_tensor(classes), counts.double(), None, {"decoder": features.float()})


def line(*values: float) -> Tensor:
    return torch.tensor(values)[:, None]


def by_hand(samples: list[VoxelSample]) -> tuple[dict[tuple[int, int, int], float], list[float]]:
    """Distances by (case, case, class), and varieties, with NumPy and SciPy."""
    values = [sample.features["decoder"].double().numpy() for sample in samples]
    labels = [sample.classes.numpy() for sample in samples]
    scale = math.sqrt(np.concatenate(values).var(0).sum())
    distances = {}
    for i in range(len(samples)):
        for j in range(i + 1, len(samples)):
            for label in set(labels[i]) & set(labels[j]) - {0}:
                one, other = values[i][labels[i] == label] / scale, values[j][labels[j] == label] / scale
                first, second = (np.atleast_2d(np.cov(part.T, bias=True)) for part in (one, other))
                gap = ((one.mean(0) - other.mean(0)) ** 2).sum()
                spread = np.trace(first + second - 2 * np.real(sqrtm(first @ second)))
                distances[i, j, int(label)] = math.sqrt(gap + spread)
    varieties = []
    for sample, part in zip(samples, values, strict=True):
        points, weights, energy, mass = part / np.linalg.norm(part, axis=1)[:, None], sample.weights.numpy(), 0.0, 0.0
        for i in range(len(points)):
            for j in range(len(points)):
                if i != j:
                    energy += weights[i] * weights[j] / math.sqrt(((points[i] - points[j]) ** 2).sum() + 1e-3)
                    mass += weights[i] * weights[j]
        varieties.append(mass / energy)
    return distances, varieties


def test_one_dimension_by_hand():
    # class 1: N(0, 1) and N(3, 4); the variance of all six values is 9
    one, other = case(line(-1, 1, -4), [1, 1, 0]), case(line(1, 5, 4), [1, 1, 0])
    values = [-1, 1, -4, 1, 5, 4]
    scale = np.std(values)
    found = consistency([one, other], "decoder")
    assert (found.pairs.tolist(), found.classes.tolist()) == ([[0, 1]], [1])
    assert found.distances.tolist() == pytest.approx([math.sqrt(3**2 + 1**2) / scale])
    # on the unit sphere {-1, 1, -1} and {1, 1, 1}: 1/distance is 1/2 for two of three pairs, and 1/sqrt(.001)
    near, far = 1 / math.sqrt(1e-3), 1 / math.sqrt(4 + 1e-3)
    assert found.varieties.tolist() == pytest.approx([3 / (near + 2 * far), 1 / near])
    expected = math.log((3 / (near + 2 * far) + 1 / near) / 2 / (math.sqrt(10) / scale))
    assert cc_fv(found, (1, 1)) == pytest.approx(expected)


def drawn(seed: int = 0, sizes: tuple[int, ...] = (24, 30, 36), features: int = 4) -> list[VoxelSample]:
    generator = torch.Generator().manual_seed(seed)
    result = []
    for size in sizes:
        weights = (1 + torch.rand(size, generator=generator)).tolist()
        shift = torch.randn(features, generator=generator)
        labels = torch.arange(size) % 3
        result.append(case(torch.randn(size, features, generator=generator) + shift + labels[:, None], labels, weights))
    return result


@pytest.mark.parametrize("features", [4, 40])  # fewer and more than the voxels of a class
def test_several_dimensions_classes_and_cases(features: int):
    samples = drawn(1, features=features)
    found = consistency(samples, "decoder")
    distances, varieties = by_hand(samples)
    rows = zip(found.pairs.tolist(), found.classes.tolist(), found.distances.tolist(), strict=True)
    assert {(*pair, label): value for pair, label, value in rows} == pytest.approx(distances, rel=1e-4)
    assert found.varieties.tolist() == pytest.approx(varieties, rel=1e-6)
    # case 0 drawn twice, case 1 once: the pair counts, a case and itself does not
    mean = (distances[0, 1, 1] + distances[0, 1, 2]) / 2
    expected = math.log((2 * varieties[0] + varieties[1]) / 3 / mean)
    assert cc_fv(found, (2, 1, 0)) == pytest.approx(expected, rel=1e-4)


def test_order_and_scale_do_not_matter():
    samples = drawn(2)
    expected = cc_fv(consistency(samples, "decoder"), (1, 1, 1))
    shuffled = []
    for sample in samples:
        order = torch.randperm(len(sample.classes), generator=torch.Generator().manual_seed(3))
        features = 100 * sample.features["decoder"][order].flip(1)
        shuffled.append(VoxelSample("a", sample.classes[order], sample.weights[order], None, {"decoder": features}))
    assert cc_fv(consistency(shuffled, "decoder"), (1, 1, 1)) == pytest.approx(expected, rel=1e-5)
    assert cc_fv(consistency(samples[::-1], "decoder"), (1, 1, 1)) == pytest.approx(expected, rel=1e-9)


def test_cases_alike_score_higher_than_cases_apart():
    samples = drawn(4)
    apart = [case(s.features["decoder"] + 5 * k, s.classes) for k, s in enumerate(samples)]
    assert cc_fv(consistency(samples, "decoder"), (1, 1, 1)) > cc_fv(consistency(apart, "decoder"), (1, 1, 1))


def test_the_number_of_pairs_grows_with_the_cases_only():
    assert len(_pairs(2)) == 1
    assert len(_pairs(2 * _NEIGHBOURS + 1)) == 21 * 20 / 2
    assert len(_pairs(100)) == 100 * _NEIGHBOURS


def test_what_cannot_be_scored_says_why():
    with pytest.raises(CannotScoreError, match="the same in all voxels"):
        consistency([case(torch.full((6, 3), 0.1), [0, 1] * 3)] * 2, "decoder")
    found = consistency([case(torch.randn(6, 3), [0, 1] * 3), case(torch.randn(6, 3), [0, 2] * 3)], "decoder")
    with pytest.raises(CannotScoreError, match="no foreground class is in two cases"):
        cc_fv(found, (1, 1))
    twin = case(torch.randn(6, 3), [0, 1] * 3)
    with pytest.raises(CannotScoreError, match="the same in all cases"):
        cc_fv(consistency([twin, twin], "decoder"), (1, 1))


def test_a_class_with_one_voxel_and_zero_features_are_finite():
    features = torch.randn(6, 3, generator=torch.Generator().manual_seed(5))
    features[2] = 0  # no direction
    found = consistency([case(features, [0, 0, 0, 1, 1, 1]), case(features + 1, [0, 0, 0, 0, 0, 1])], "decoder")
    assert math.isfinite(cc_fv(found, (1, 1)))
