"""Which way round the source sees more, and what finding that out costs."""

from pathlib import Path
from typing import Any

import pytest
import torch
from risk_cases import TinySource, contents, phase_of, run_ranks, store_of
from torch import Tensor

from riskft.data.prepare.cache import PreparedCase
from riskft.risk.contrast import JUDGED, LEAST_GAIN, better_seen
from riskft.risk.phase import RiskPhase


class Bright(TinySource):
    """Takes what is bright, or dark, for one class."""

    def __init__(self, sign: int) -> None:
        super().__init__()
        self.sign = sign

    def forward(self, image: Tensor) -> Tensor:
        self.calls += 1
        bright = torch.nn.functional.relu(self.sign * image[:, :1] - 1)
        return torch.cat([torch.full_like(bright, 1.0), 3 * bright], 1)


def phases(root: Path, cases: list[PreparedCase], signs: tuple[int, int]) -> tuple[list[Bright], list[RiskPhase]]:
    networks = [Bright(sign) for sign in signs]
    stores = [store_of(root, cases, [], None, f"{place}: sign {sign}") for place, sign in enumerate(signs)]
    return networks, [phase_of(store, network.infer) for store, network in zip(stores, networks, strict=True)]


# the cases' classes are brighter than what is around them
@pytest.mark.parametrize(("signs", "expected"), [((1, -1), False), ((-1, 1), True)])
def test_the_way_that_tells_more_is_chosen(
    tmp_path: Path,
    risk_prepared: list[PreparedCase],
    signs: tuple[int, int],
    expected: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    networks, both = phases(tmp_path, risk_prepared, signs)
    knowledge = [phase.knowledge(risk_prepared) for phase in both]
    assert max(knowledge) > min(knowledge) + 2 * LEAST_GAIN
    assert better_seen(*both, risk_prepared) is expected
    assert ("it is shown the negative" in caplog.text) is expected
    assert [network.calls for network in networks] == [6, 6]
    # the winner's passes are used, and the loser's volumes are gone
    winner, loser = both[expected], both[not expected]
    assert not contents(loser.store.folder, "probabilities.npy")
    winner.run(risk_prepared)
    assert not contents(winner.store.folder, "probabilities.npy")
    assert [network.calls for network in networks] == [6, 6]
    # and for a later run it is known
    networks, both = phases(tmp_path, risk_prepared, signs)
    assert better_seen(*both, risk_prepared) is expected
    assert [network.calls for network in networks] == [0, 0]


def test_what_it_knows_is_what_phase_1_finds(tmp_path: Path, risk_prepared: list[PreparedCase]) -> None:
    networks, (phase, _) = phases(tmp_path, risk_prepared, (1, -1))
    summary = phase.run(risk_prepared)
    assert phase.knowledge(risk_prepared) == pytest.approx(summary.knowledge, rel=1e-6)
    assert networks[0].calls == 12  # the maps' probabilities were not kept


def test_no_clear_gain_leaves_the_images_as_they_are(tmp_path: Path, risk_prepared: list[PreparedCase]) -> None:
    _, both = phases(tmp_path, risk_prepared, (1, 1))
    assert not better_seen(*both, risk_prepared)
    both[1].store.write_knowledge(both[0].knowledge(risk_prepared) + 0.9 * LEAST_GAIN)
    assert not better_seen(*both, risk_prepared)
    both[1].store.write_knowledge(both[0].knowledge(risk_prepared) + 1.1 * LEAST_GAIN)
    assert better_seen(*both, risk_prepared)


def test_no_more_than_some_cases_are_passed_twice(tmp_path: Path, risk_prepared: list[PreparedCase]) -> None:
    assert JUDGED == 8
    networks, both = phases(tmp_path, risk_prepared, (1, -1))
    better_seen(*both, [*risk_prepared, *risk_prepared])  # of twelve the first eight by name: four cases
    assert [network.calls for network in networks] == [4, 4]


def test_two_ranks_find_what_one_finds(tmp_path: Path, risk_prepared: list[PreparedCase]) -> None:
    networks, _ = phases(tmp_path, risk_prepared, (-1, 1))
    stores = [store_of(tmp_path, risk_prepared, [], None, f"both: sign {sign}") for sign in (-1, 1)]

    def work(rank: int, gather: Any) -> bool:
        both = [
            phase_of(store, network.infer, rank=rank, world_size=2, gather=gather)
            for store, network in zip(stores, networks, strict=True)
        ]
        return better_seen(*both, risk_prepared)

    assert run_ranks(2, work) == [True, True]
    assert [network.calls for network in networks] == [6, 6]
    assert len(contents(stores[1].folder, "probabilities.npy")) == 6
    assert not contents(stores[0].folder, "probabilities.npy")


def test_a_run_whose_probabilities_a_comparison_drops_makes_them_again(
    tmp_path: Path, risk_prepared: list[PreparedCase]
) -> None:
    """A plain run and one that compares may share a store at the same time."""
    networks, (phase, _) = phases(tmp_path, risk_prepared, (-1, 1))
    expected = phase.run(risk_prepared)
    networks, (phase, _) = phases(tmp_path / "again", risk_prepared, (-1, 1))
    forward = phase._forward

    def interrupted(cases: list[PreparedCase]) -> None:
        forward(cases)
        phase.drop_forward(cases)

    phase._forward = interrupted  # type: ignore[method-assign,assignment]
    assert phase.run(risk_prepared).to_json() == expected.to_json()
    assert networks[0].calls == 12
