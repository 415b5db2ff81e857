"""The bins of single-precision values are those of the logarithm in double precision."""

import torch

from riskft.risk.distribution import BINS, ClassDistribution, float_bins


def boundaries() -> torch.Tensor:
    """Returns the smallest float32 of each bin from 0 up, and the largest of the one before."""
    low, high = torch.zeros(BINS // 2, dtype=torch.int32), torch.full((BINS // 2,), 0x7F800000, dtype=torch.int32)
    wanted = torch.arange(BINS // 2, BINS)
    while bool((high - low > 1).any()):
        middle = low + (high - low) // 2
        reached = ClassDistribution.bin_of(middle.view(torch.float32)) >= wanted
        low, high = torch.where(reached, low, middle), torch.where(reached, middle, high)
    return torch.cat([low, high]).view(torch.float32)


def test_they_are_equal_on_both_sides_of_each_boundary_and_at_any_value() -> None:
    generator = torch.Generator().manual_seed(0)
    any_bits = torch.randint(0, 0x7F800000, (200_000,), generator=generator, dtype=torch.int32).view(torch.float32)
    nats = torch.rand(200_000, generator=generator) ** 8 * 30
    ends = torch.tensor([0.0, 1e-45, 1e-38, 1e-6, 242.0, 243.0, 3e38, torch.inf])
    for values in (boundaries(), any_bits, nats, ends):
        assert torch.equal(float_bins(values).long(), ClassDistribution.bin_of(values))


def test_minus_0_is_0_and_nan_does_not_crash() -> None:
    assert float_bins(torch.tensor([-0.0, torch.nan])).tolist() == [BINS // 2, BINS - 1]
