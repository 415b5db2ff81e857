"""The table of scores: names, intervals over cases, and input that allows few scores."""

import itertools
import math

import numpy as np
import pytest
import torch

from riskft.evaluation.metrics import CaseScore, class_means, overall
from riskft.transferability.moments import moments
from riskft.transferability.predictions import leep, leep_by_class
from riskft.transferability.probe import score_probe
from riskft.transferability.samples import VoxelSample
from riskft.transferability.separability import logme
from riskft.transferability.table import Estimate, score_table


def case(seed: int, classes: int = 3, per_class: int = 12, size: int = 4, head: bool = True) -> VoxelSample:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(classes).repeat_interleave(per_class)
    weights = torch.tensor([50.0, 5.0, 1.0])[:classes].double()[labels]
    features = {
        depth: torch.randn(len(labels), size, generator=generator) + 2 * torch.eye(3, size)[labels]
        for depth in ("encoder", "decoder")
    }
    logits = torch.randn(len(labels), 2, generator=generator) + torch.eye(3, 2)[labels]
    return VoxelSample(f"case {seed}", labels, weights, logits.softmax(1) if head else None, features)


def assert_finite(table: dict[str, Estimate]) -> None:
    for name, estimate in table.items():
        numbers = [number for number in (estimate.value, estimate.low, estimate.high) if number is not None]
        assert all(math.isfinite(number) for number in numbers), name
        assert (estimate.value is None) == bool(estimate.reason), name


def test_names_directions_and_intervals():
    table = score_table([case(seed) for seed in range(4)], bootstrap=200, seed=1)
    of_depth = ["h_score", "logme", "gbc", "cc_fv", "probe_dice", "probe_nll"]
    assert list(table) == ["leep", "leep_by_class", "nce"] + [
        f"{name}.{depth}" for depth in ("encoder", "decoder") for name in of_depth
    ]
    assert [name for name, estimate in table.items() if not estimate.higher_is_better] == [
        "probe_nll.encoder",
        "probe_nll.decoder",
    ]
    assert_finite(table)
    for name, estimate in table.items():
        assert estimate.low is not None, name
        assert estimate.high is not None, name
        assert estimate.value is not None, name
        assert estimate.low < estimate.value < estimate.high, name
    assert table == score_table([case(seed) for seed in range(4)], bootstrap=200, seed=1)
    assert table != score_table([case(seed) for seed in range(4)], bootstrap=200, seed=2)


def together(samples: list[VoxelSample], drawn: tuple[int, ...]) -> tuple[float, float, float]:
    """LEEP, LEEP by class and LogME of the voxels of the drawn cases."""
    chosen = [samples[index] for index in drawn]
    classes, weights = torch.cat([s.classes for s in chosen]), torch.cat([s.weights for s in chosen])
    predicted = torch.cat([s.probabilities for s in chosen if s.probabilities is not None]), classes, weights
    features = torch.cat([s.features["decoder"] for s in chosen])
    return (
        leep(*predicted),
        leep_by_class(*predicted),
        logme(moments(features, classes, 3, features.double().mean(0))),
    )


@pytest.mark.parametrize("lacking", [False, True])
def test_values_and_intervals_are_those_of_the_drawn_cases_put_together(lacking: bool):
    # class 2 in all cases, or in the first alone: draws without it do not count then
    samples = [case(seed, classes=2 if lacking and seed else 3) for seed in range(3)]
    table = score_table(samples, bootstrap=5000, seed=0)
    drawn = [cases for cases in itertools.product(range(3), repeat=3) if not lacking or 0 in cases]
    values = np.array([together(samples, cases) for cases in drawn])
    names = ["leep", "leep_by_class", "logme.decoder"]
    assert [table[name].value for name in names] == pytest.approx(together(samples, (0, 1, 2)), rel=1e-9)
    # each of the 27 draws, or of 19, has more than 2.5 %: the interval is from the smallest to the largest,
    # shifted by what the mean of the draws is off
    low, high = (np.array([getattr(table[name], end) for name in names]) for end in ("low", "high"))
    value = np.array([table[name].value for name in names])
    assert high - low == pytest.approx(np.ptp(values, axis=0), rel=1e-9)
    chance = values.std(0) / math.sqrt(5000)
    assert (np.abs(low - value - values.min(0) + values.mean(0)) < 5 * chance).all()


def test_the_probes_dice_is_the_mean_over_classes_of_the_means_over_cases():
    # class 2 in one of three cases: its mean is over that case, and over those where it is predicted
    samples = [case(0), case(1, classes=2), case(2, classes=2)]
    table = score_table(samples, bootstrap=10)
    dice = score_probe(samples, "decoder", 3).dice
    scores = [CaseScore(str(k), str(c), float(dice[k, c]), math.nan, 0, 0) for k in range(3) for c in range(2)]
    assert table["probe_dice.decoder"].value == pytest.approx(overall(class_means(scores, "dice")))


def test_an_encoder_without_a_head_has_the_scores_of_its_features():
    table = score_table([case(seed, head=False) for seed in range(3)], bootstrap=50)
    assert_finite(table)
    assert [name for name, estimate in table.items() if estimate.value is None] == ["leep", "leep_by_class", "nce"]
    assert table["leep"].reason == "the source has no segmentation head"


def test_one_case_has_values_without_intervals_and_no_probe():
    table = score_table([case(0)], bootstrap=50)
    assert_finite(table)
    lacking = {name.partition(".")[0]: estimate.reason for name, estimate in table.items() if estimate.value is None}
    assert set(lacking) == {"cc_fv", "probe_dice", "probe_nll"}
    assert lacking["probe_nll"].startswith("one labelled case")
    assert {(estimate.low, estimate.high) for estimate in table.values()} == {(None, None)}


def test_one_class_has_no_scores():
    table = score_table([case(seed, classes=1) for seed in range(3)], bootstrap=50)
    assert {estimate.value for estimate in table.values()} == {None}
    assert table["leep"].reason == table["gbc.encoder"].reason == "1 class in the labelled cases, expected at least 2"


def test_features_without_information_or_with_nan_spoil_their_depth_alone():
    samples = []
    for seed in range(3):
        sample = case(seed)
        broken = {
            **sample.features,
            "encoder": torch.full((36, 4), 0.1),
            "bottleneck": torch.full((36, 4), math.nan),
        }
        samples.append(VoxelSample(sample.subject, sample.classes, sample.weights, sample.probabilities, broken))
    table = score_table(samples, bootstrap=50)
    assert_finite(table)
    reasons = {name: estimate.reason for name, estimate in table.items() if estimate.value is None}
    assert {name.partition(".")[2] for name in reasons} == {"encoder", "bottleneck"}
    assert set(reasons.values()) == {
        "the features are the same in all voxels",
        "the source's features are NaN or infinite in some voxels",
    }


def test_few_voxels_and_many_features_are_finite():
    assert_finite(score_table([case(seed, per_class=2, size=50) for seed in range(3)], bootstrap=50))
    assert_finite(score_table([case(seed, per_class=1) for seed in range(2)], bootstrap=50))


def test_cases_without_voxels_do_not_count():
    empty = VoxelSample(
        "empty",
        torch.empty(0, dtype=torch.long),
        torch.empty(0, dtype=torch.float64),
        torch.empty(0, 2),
        {"encoder": torch.empty(0, 4), "decoder": torch.empty(0, 4)},
    )
    samples = [case(0), case(1)]
    assert score_table([samples[0], empty, samples[1]], 50) == score_table(samples, 50)
    assert score_table([empty], 50) == {}
