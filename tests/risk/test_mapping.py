"""From hardness to weight: scopes, measures, balance and tempering."""

import json
import math

import pytest
import torch
from torch import Tensor

from riskft.errors import InputError
from riskft.files import fingerprint
from riskft.risk.distribution import ClassDistribution
from riskft.risk.mapping import RiskMapping, source_knowledge
from riskft.risk.weighting import (
    ExponentialWeight,
    LinearWeight,
    MinMaxNormalise,
    Normalise,
    PowerWeight,
    QuantileNormalise,
    RankNormalise,
    WeightFunction,
    WindowNormalise,
)

JOINT = torch.tensor([[5.0, 2.0], [1.0, 2.0]], dtype=torch.float64)  # P(y) = .7, .3


def plain(normalise: Normalise, weight: WeightFunction, **options: object) -> RiskMapping:
    return RiskMapping(normalise, weight=weight, **{"balance": False, "temper": False, **options})  # type: ignore[arg-type]


def data_set(seed: int = 0, volumes: int = 3) -> list[tuple[Tensor, Tensor]]:
    """Hardness and classes of volumes: much easy background, some hard foreground, one voxel of class 3."""
    generator = torch.Generator().manual_seed(seed)
    result = []
    for index in range(volumes):
        classes = torch.multinomial(torch.tensor([0.9, 0.08, 0.02]), 3000, replacement=True, generator=generator)
        hardness = -torch.rand(3000, generator=generator).log() * torch.tensor([0.05, 0.8, 3.0])[classes]
        if index == 0:
            classes[17] = 3
        result.append((hardness.clamp(0, 27.6), classes))
    return result


def distribution(
    mapping: RiskMapping, volumes: list[tuple[Tensor, Tensor]], joint: Tensor = JOINT
) -> ClassDistribution:
    result = ClassDistribution(5)  # class 4 is empty
    for hardness, classes in volumes:
        result.update(mapping.values(hardness, classes, joint), classes)
    return result


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        # this volume holds 0, 1 (class 0) and 2, 4 (class 1); the other one 0, 5 (class 0) and 4, 10 (class 1)
        ("volume", [1.0, 1.25, 1.5, 2.0]),  # / 4
        ("dataset", [1.0, 1.1, 1.2, 1.4]),  # / 10
        ("class", [1.0, 1.2, 1.0, 1.25]),  # / 5 in class 0, (h - 2) / 8 in class 1
    ],
)
def test_scope(scope: str, expected: list[float]) -> None:
    mapping = plain(MinMaxNormalise(), LinearWeight(1), scope=scope)
    volumes = [
        (torch.tensor([0.0, 1.0, 2.0, 4.0]), torch.tensor([0, 0, 1, 1])),
        (torch.tensor([0.0, 5.0, 4.0, 10.0]), torch.tensor([0, 0, 1, 1])),
    ]
    values = mapping.values(*volumes[0], JOINT)
    got = mapping.weights(values, volumes[0][1], distribution(mapping, volumes), 1.0)
    assert got.dtype == torch.float32
    assert got.tolist() == pytest.approx(expected)


def test_measure() -> None:
    hardness, classes = torch.tensor([0.5, 0.5, 2.0]), torch.tensor([0, 1, 1])
    assert RiskMapping().values(hardness, classes, JOINT).tolist() == [0.5, 0.5, 2.0]
    relative = RiskMapping(measure="relative_to_prior").values(hardness, classes, JOINT)
    assert relative.dtype == torch.float64
    assert relative.tolist() == pytest.approx([0.5 + math.log(0.7), 0.5 + math.log(0.3), 2.0 + math.log(0.3)])


def test_blind_source_is_no_harm_relative_to_the_prior() -> None:
    classes = torch.tensor([0, 1, 0])
    hardness = -torch.tensor([0.7, 0.3, 0.7]).log()
    values = RiskMapping(measure="relative_to_prior").values(hardness, classes, JOINT)
    assert values.tolist() == pytest.approx([0.0] * 3, abs=1e-6)


def test_class_prior_is_the_information_of_the_class_whatever_the_source_says() -> None:
    hardness, classes = torch.tensor([0.1, 5.0, 0.2]), torch.tensor([0, 0, 1])
    values = RiskMapping(measure="class_prior").values(hardness, classes, JOINT)
    assert values.tolist() == pytest.approx([-math.log(0.7), -math.log(0.7), -math.log(0.3)], rel=1e-12)
    assert values.dtype == torch.float64
    absent = torch.tensor([[1.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    assert bool(RiskMapping(measure="class_prior").values(hardness, classes, absent).isfinite().all())


def test_class_prior_map_weights_classes_and_nothing_else() -> None:
    mapping = plain(MinMaxNormalise(), ExponentialWeight(10), scope="dataset", measure="class_prior")
    joint = torch.tensor([[70.0], [20.0], [10.0]], dtype=torch.float64)
    volumes = [(torch.rand(100), torch.tensor([0] * 70 + [1] * 20 + [2] * 10))]
    values = mapping.values(*volumes[0], joint)
    got = mapping.weights(values, volumes[0][1], distribution(mapping, volumes, joint), 1.0)
    # n = (log .7 - log P(y)) / (log .7 - log .1): 0, .6438, 1
    middle = 10 ** (math.log(0.7 / 0.2) / math.log(7))
    assert got.unique().tolist() == pytest.approx([1, middle, 10], rel=1e-5)
    assert got[[0, 75, 95]].tolist() == pytest.approx([1, middle, 10], rel=1e-5)


def test_window_is_the_bounded_exponential_of_the_harm() -> None:
    # base^n with base e^1.5 is exp(0.5 clip(r, -1, 2)) up to a factor
    mapping = plain(
        WindowNormalise(-1, 2), ExponentialWeight(math.exp(1.5)), scope="dataset", measure="relative_to_prior"
    )
    harm = torch.tensor([-3.0, -1.0, 0.0, 1.0, 2.0, 9.0], dtype=torch.float64)
    own = ClassDistribution(1)
    own.update(harm, torch.zeros(6, dtype=torch.long))
    got = mapping.weights(harm, torch.zeros(6, dtype=torch.long), own, 1.0)
    expected = torch.exp(0.5 * harm.clamp(-1, 2) + 0.5).float()
    torch.testing.assert_close(got, expected)


def test_class_without_mass_has_a_finite_value_relative_to_the_prior() -> None:
    joint = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    assert bool(
        RiskMapping(measure="relative_to_prior").values(torch.tensor([27.6]), torch.tensor([1]), joint).isfinite().all()
    )


@pytest.mark.parametrize("scope", ["volume", "dataset", "class"])
@pytest.mark.parametrize("measure", ["hardness", "relative_to_prior"])
@pytest.mark.parametrize("normalise", [MinMaxNormalise(), QuantileNormalise(0.99), RankNormalise(), RankNormalise(0)])
@pytest.mark.parametrize("weight", [ExponentialWeight(10), LinearWeight(2), PowerWeight()])
def test_balance_gives_every_class_a_mean_weight_of_one(
    scope: str, measure: str, normalise: Normalise, weight: WeightFunction
) -> None:
    mapping = plain(normalise, weight, scope=scope, measure=measure, balance=True)
    joint = torch.tensor([[8.0, 1.0], [0.5, 0.4], [0.1, 0.1], [0.001, 0.001], [0.0, 0.0]], dtype=torch.float64)
    volumes = data_set()
    dataset = distribution(mapping, volumes, joint)
    maps = [mapping.weights(mapping.values(h, c, joint), c, dataset, 1.0) for h, c in volumes]
    # a volume's own scope balances inside the volume
    groups = [[0], [1], [2]] if scope == "volume" else [[0, 1, 2]]
    for group in groups:
        weights = torch.cat([maps[index] for index in group]).double()
        classes = torch.cat([volumes[index][1] for index in group])
        assert bool((weights > 0).all())
        for index in classes.unique().tolist():
            assert float(weights[classes == index].mean()) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("scope", ["volume", "dataset", "class"])
@pytest.mark.parametrize("temper", [False, True])
def test_balance_by_the_gradient_leaves_every_class_its_total_gradient(scope: str, temper: bool) -> None:
    mapping = plain(RankNormalise(), PowerWeight(), scope=scope, balance="gradient", temper=temper)
    volumes = data_set()
    dataset = distribution(mapping, volumes)
    maps = [mapping.weights(h.double(), c, dataset, 0.7) for h, c in volumes]
    groups = [[0], [1], [2]] if scope == "volume" else [[0, 1, 2]]
    for group in groups:
        weights = torch.cat([maps[index] for index in group]).double()
        size = torch.cat([1 - (-volumes[index][0].double()).exp() for index in group])
        classes = torch.cat([volumes[index][1] for index in group])
        for index in classes.unique().tolist():
            inside = classes == index
            assert float((weights * size)[inside].sum() / size[inside].sum()) == pytest.approx(1, abs=0.01)
            if int(inside.sum()) > 1:  # what is hard weighs more, so the mean voxel weighs less
                assert float(weights[inside].mean()) < 0.99


def test_balance_by_the_gradient_of_a_class_without_any_is_none() -> None:
    mapping = plain(RankNormalise(), PowerWeight(), balance="gradient")
    values, classes = torch.zeros(4, dtype=torch.float64), torch.tensor([0, 0, 1, 1])
    dataset = ClassDistribution(2)
    dataset.update(values, classes)
    weights = mapping.weights(values, classes, dataset, 1.0)
    assert bool(weights.isfinite().all())
    assert bool((weights > 0).all())


@pytest.mark.parametrize(
    ("options", "says"),
    [({"balance": "gradient", "measure": "class_prior"}, "measure"), ({"balance": "no"}, "balance")],
)
def test_balances_that_do_not_exist(options: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=f"argument `{says}`"):
        RiskMapping(**options)  # type: ignore[arg-type]


def test_without_balance_the_mean_weight_is_the_functions_own() -> None:
    mapping = plain(RankNormalise(0), PowerWeight(0.5, 3, 3))
    volumes = data_set()
    dataset = distribution(mapping, volumes)
    weights = torch.cat([mapping.weights(h.double(), c, dataset, 1.0) for h, c in volumes])
    classes = torch.cat([c for _, c in volumes])
    for index in (0, 1):  # the mean of .5 + 3 n^3 over n uniform in [0, 1] is 1.25
        assert float(weights[classes == index].mean()) == pytest.approx(1.25, rel=0.01)


@pytest.mark.parametrize("balance", [False, True])
def test_temper(balance: bool) -> None:
    volumes = data_set()
    hardness, classes = volumes[0]
    tempered, untouched = (RiskMapping(balance=balance, temper=temper) for temper in (True, False))
    dataset = distribution(tempered, volumes)
    raw = untouched.weights(hardness.double(), classes, dataset, 0.0)
    assert torch.equal(tempered.weights(hardness.double(), classes, dataset, 0.0), torch.ones(3000))
    torch.testing.assert_close(tempered.weights(hardness.double(), classes, dataset, 1.0), raw)
    quarter = tempered.weights(hardness.double(), classes, dataset, 0.25)
    torch.testing.assert_close(quarter, 1 + 0.25 * (raw - 1))
    assert float(raw.std()) > 0.1


@pytest.mark.parametrize("scope", ["volume", "dataset", "class"])
@pytest.mark.parametrize("normalise", [MinMaxNormalise(), QuantileNormalise(), RankNormalise()])
@pytest.mark.parametrize("weight", [ExponentialWeight(), LinearWeight(), PowerWeight()])
def test_perfect_source_leaves_every_weight_at_one(scope: str, normalise: Normalise, weight: WeightFunction) -> None:
    mapping = RiskMapping(normalise, scope=scope, weight=weight)  # type: ignore[arg-type]
    hardness, classes = torch.zeros(50), torch.arange(50) % 3
    dataset = distribution(mapping, [(hardness, classes)])
    got = mapping.weights(hardness.double(), classes, dataset, 1.0)
    torch.testing.assert_close(got, torch.ones(50))


@pytest.mark.parametrize("scope", ["volume", "dataset", "class"])
@pytest.mark.parametrize("normalise", [MinMaxNormalise(), QuantileNormalise(), RankNormalise()])
def test_unseen_class_of_a_validation_case_has_a_finite_weight(scope: str, normalise: Normalise) -> None:
    mapping = RiskMapping(normalise, scope=scope, measure="relative_to_prior")  # type: ignore[arg-type]
    joint = torch.tensor([[8.0], [1.0], [1.0], [0.0], [0.0]], dtype=torch.float64)
    dataset = distribution(mapping, data_set(), joint)
    hardness, classes = torch.tensor([0.1, 27.6]), torch.tensor([0, 4])
    got = mapping.weights(mapping.values(hardness, classes, joint), classes, dataset, 0.8)
    assert bool(got.isfinite().all())
    assert bool((got > 0).all())


@pytest.mark.parametrize("scope", ["volume", "dataset", "class"])
def test_volume_without_a_voxel_that_counts(scope: str) -> None:
    mapping = RiskMapping(scope=scope)  # type: ignore[arg-type]
    nothing = torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.long)
    assert mapping.weights(*nothing, distribution(mapping, data_set()), 1.0).shape == (0,)


@pytest.mark.parametrize(
    ("leep", "expected"),
    [(0.0, 1.0), (-0.610864, 0.0), (-0.305432, 0.5), (-5.0, 0.0)],
)
def test_source_knowledge(leep: float, expected: float) -> None:
    assert source_knowledge(JOINT, leep) == pytest.approx(expected, abs=1e-5)


def test_one_class_alone_is_nothing_to_know() -> None:
    assert source_knowledge(torch.tensor([[3.0, 1.0], [0.0, 0.0]]), 0.0) == 0.0


def test_description_is_json_and_tells_options_apart() -> None:
    variants = [
        RiskMapping(),
        RiskMapping(normalise=RankNormalise(0.02)),
        RiskMapping(normalise=QuantileNormalise(0.99)),
        RiskMapping(normalise=MinMaxNormalise()),
        RiskMapping(normalise=QuantileNormalise(1.0)),
        RiskMapping(scope="volume"),
        RiskMapping(measure="relative_to_prior"),
        RiskMapping(weight=PowerWeight(gain=2)),
        RiskMapping(weight=LinearWeight()),
        RiskMapping(weight=ExponentialWeight()),
        RiskMapping(balance=False),
        RiskMapping(temper=False),
    ]
    described = [mapping.describe() for mapping in variants]
    assert json.loads(json.dumps(described)) == described
    assert len({fingerprint(each) for each in described}) == len(variants)
    assert RiskMapping().describe() == RiskMapping(RankNormalise(0.01), weight=PowerWeight(0.5, 3.0, 3.0)).describe()
