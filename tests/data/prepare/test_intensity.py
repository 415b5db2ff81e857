"""Grey values by hand."""

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser

import riskft
from riskft.data.prepare.intensity import (
    ClipIntensity,
    Intensity,
    MinMaxIntensity,
    PercentileIntensity,
    PerChannelIntensity,
    ZScoreIntensity,
    zscore,
)
from riskft.data.prepare.preprocess import Preprocessing
from riskft.errors import InputError


def volume(*channels) -> torch.Tensor:
    """Channels of lists of grey values, along x."""
    return torch.tensor(channels, dtype=torch.float32).reshape(len(channels), -1, 1, 1)


def everywhere(image: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(image, dtype=torch.bool)


def test_zscore_by_hand():
    image = volume([1.0, 3.0, 100.0], [5.0, 5.0, 7.0])
    inside = volume([1, 1, 0], [1, 1, 0]).bool()
    # mean 2, deviation sqrt(2); a channel that is constant inside becomes 0
    expected = pytest.approx([-(0.5**0.5), 0.5**0.5, 0, 0, 0, 0])
    assert zscore(image, inside).flatten().tolist() == expected
    assert ZScoreIntensity()(image, inside).flatten().tolist() == expected
    # the whole volume: (1 + 2 + 6) / 3 = 3, and (4 + 1 + 9) / 2 = 7
    whole = ZScoreIntensity(masked=False)(volume([1.0, 2.0, 6.0]), volume([1, 1, 0]).bool())
    assert whole.flatten().tolist() == pytest.approx([-2 / 7**0.5, -1 / 7**0.5, 3 / 7**0.5])


@pytest.mark.filterwarnings("error")
def test_a_body_of_zeros_in_another_background_is_zero():
    image = volume([0.0, 0.0, 1.0])
    assert (zscore(image, image == 0) == 0).all()


def test_percentiles_by_hand():
    # 0..50: the 10th percentile is 5, the 90th 45; the second channel is the first, backwards and scaled
    image = volume(range(51), [7 * (50 - value) - 20 for value in range(51)])
    found = PercentileIntensity(low=10, high=90)(image, torch.zeros_like(image, dtype=torch.bool))
    expected = [min(1, max(0, (value - 5) / 40)) for value in range(51)]
    assert found[0].flatten().tolist() == pytest.approx(expected, abs=1e-6)
    assert found[1].flatten().tolist() == pytest.approx(expected[::-1], abs=1e-6)
    assert found.dtype == torch.float32


def test_the_range_by_hand():
    image = volume([-10.0, 0.0, 30.0], [2.0, 2.0, 2.0])
    assert MinMaxIntensity()(image, everywhere(image)).flatten().tolist() == pytest.approx([0, 0.25, 1, 0, 0, 0])


def test_percentiles_of_a_constant_are_zero():
    image = volume([4.0] * 9 + [5.0])
    assert (PercentileIntensity(2, 50)(image, everywhere(image)) == 0).all()


def test_clip_by_hand():
    image = volume([-1000.0, 0.0, 100.0, 3000.0])
    found = ClipIntensity(low=-100, high=300, mean=50, std=25)(image, everywhere(image))
    assert found.flatten().tolist() == pytest.approx([-6, -2, 2, 10])


def test_each_channel_has_its_own():
    image = volume([0.0, 5.0, 10.0], [-400.0, 40.0, 80.0])
    found = PerChannelIntensity([MinMaxIntensity(), ClipIntensity(0, 80, 40, 10)])(image, everywhere(image))
    assert found.flatten().tolist() == pytest.approx([0, 0.5, 1, -4, 0, 4])
    with pytest.raises(InputError, match="has 2 entries, but the image has 1 channels"):
        PerChannelIntensity([MinMaxIntensity(), MinMaxIntensity()])(image[:1], everywhere(image[:1]))


def test_the_image_itself_is_left_alone():
    image = volume([1.0, 2.0, 9.0])
    before = image.clone()
    for intensity in (
        ZScoreIntensity(),
        ZScoreIntensity(False),
        PercentileIntensity(),
        MinMaxIntensity(),
        ClipIntensity(0, 1),
        PerChannelIntensity([ZScoreIntensity()]),
    ):
        result = intensity(image, everywhere(image))
        assert result.dtype == torch.float32
        assert result.shape == image.shape
        assert torch.equal(image, before)


@pytest.mark.parametrize(
    "make",
    [
        lambda: PercentileIntensity(50, 50),
        lambda: PercentileIntensity(-1, 50),
        lambda: PercentileIntensity(2, 101),
        lambda: ClipIntensity(3, 3),
        lambda: ClipIntensity(0, 3, std=0),
    ],
)
def test_bad_options(make):
    with pytest.raises(InputError, match="expected"):
        make()


def test_descriptions_hold_class_and_options_at_any_depth():
    nested = PerChannelIntensity([PercentileIntensity(1, 99), ZScoreIntensity()])
    assert nested.describe() == {
        "class": "PerChannelIntensity",
        "channels": [
            {"class": "PercentileIntensity", "low": "1", "high": "99"},
            {"class": "ZScoreIntensity", "masked": "True"},
        ],
    }


class Own(Intensity):
    def __init__(self, gain: float = 2.0) -> None:
        self.gain = gain
        self._cache = object()

    def __call__(self, image, inside):
        return image * self.gain


def test_a_class_of_the_user_s_is_described_by_its_options():
    assert Own(3.0).describe() == {"class": "Own", "gain": "3.0"}
    assert Preprocessing(intensity=Own(3.0)).describe() != Preprocessing(intensity=Own()).describe()


class Holder:
    """Has the preprocessing as an argument, as the data module has."""

    def __init__(self, preprocessing: Preprocessing = Preprocessing()) -> None:  # noqa: B008
        self.preprocessing = preprocessing


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ZScoreIntensity()),
        (["--p.intensity", "null"], None),
        (["--p.intensity.masked", "false"], ZScoreIntensity(masked=False)),
        (["--p.intensity", "riskft.PercentileIntensity", "--p.intensity.low", "5"], PercentileIntensity(low=5.0)),
        (
            [
                "--p.intensity",
                "{class_path: riskft.PerChannelIntensity, init_args: {channels: [{class_path: riskft.MinMaxIntensity}, "
                "{class_path: riskft.ClipIntensity, init_args: {low: -100, high: 300}}]}}",
            ],
            PerChannelIntensity([riskft.MinMaxIntensity(), riskft.ClipIntensity(-100.0, 300.0)]),
        ),
    ],
)
def test_it_is_chosen_by_class_path(arguments, expected):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Holder, "p")
    parsed = parser.parse_args([text.replace("--p.", "--p.preprocessing.") for text in arguments])
    made = parser.instantiate_classes(
        parser.parse_string(parser.dump(parsed, skip_none=False))
    )  # as a run's config keeps it
    assert made.p.preprocessing.intensity == expected


def test_units_do_not_matter():
    """Diffusion in m²/s: about 1e-9 with a deviation of 1e-10."""
    image = torch.from_numpy(np.random.default_rng(0).normal(10, 1, (1, 6, 5, 4)).astype(np.float32))
    inside = torch.ones_like(image, dtype=torch.bool)
    torch.testing.assert_close(
        ZScoreIntensity()(image * 1e-10, inside), ZScoreIntensity()(image, inside), atol=1e-5, rtol=1e-5
    )
    constant = torch.full_like(image, 0.1)
    assert ZScoreIntensity()(constant, inside).abs().max() < 1e-3
    assert ZScoreIntensity()(torch.zeros_like(image), inside).abs().max() == 0
