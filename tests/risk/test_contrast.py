"""Which way round the source sees more, and what finding that out costs."""

from pathlib import Path
from typing import Any

import pytest
import torch
from risk_cases import DEFAULT, TinySource, contents, pass_of, run_ranks, store_of
from torch import Tensor

from riskft.data.prepare.cache import PreparedCase
from riskft.risk.contrast import JUDGED, LEAST_GAIN, better_seen, knowledge
from riskft.risk.phase import RiskPhase
from riskft.risk.source_pass import SourcePass


class Bright(TinySource):
    """Takes what is bright, or dark, for one class."""

    def __init__(self, sign: int) -> None:
        super().__init__()
        self.sign = sign

    def forward(self, image: Tensor) -> Tensor:
        self.calls += 1
        bright = torch.nn.functional.relu(self.sign * image[:, :1] - 1)
        return torch.cat([torch.full_like(bright, 1.0), 3 * bright], 1)


def passes(root: Path, cases: list[PreparedCase], signs: tuple[int, int]) -> tuple[list[Bright], list[SourcePass]]:
    networks = [Bright(sign) for sign in signs]
    stores = [store_of(root, cases, [], None, f"{place}: sign {sign}") for place, sign in enumerate(signs)]
    return networks, [pass_of(store, network.infer) for store, network in zip(stores, networks, strict=True)]


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
    networks, both = passes(tmp_path, risk_prepared, signs)
    known = [knowledge(source, risk_prepared) for source in both]
    assert max(known) > min(known) + 2 * LEAST_GAIN
    assert better_seen(*both, risk_prepared) is expected
    assert ("it sees inverted images" in caplog.text) is expected
    assert [network.calls for network in networks] == [6, 6]
    # the winner's passes are used, and the loser's volumes are gone
    winner, loser = both[expected], both[not expected]
    assert not contents(loser.store.folder, "probabilities.npy")
    RiskPhase(winner, DEFAULT).run(risk_prepared)
    assert not contents(winner.store.folder, "probabilities.npy")
    assert [network.calls for network in networks] == [6, 6]
    # and for a later run it is known
    networks, both = passes(tmp_path, risk_prepared, signs)
    assert better_seen(*both, risk_prepared) is expected
    assert [network.calls for network in networks] == [0, 0]


def test_what_it_knows_is_what_phase_1_finds(tmp_path: Path, risk_prepared: list[PreparedCase]) -> None:
    networks, (source, _) = passes(tmp_path, risk_prepared, (1, -1))
    summary = RiskPhase(source, DEFAULT).run(risk_prepared)
    assert knowledge(source, risk_prepared) == pytest.approx(summary.knowledge, rel=1e-6)
    assert networks[0].calls == 12  # the maps' probabilities were not kept


def test_no_clear_gain_leaves_the_images_as_they_are(tmp_path: Path, risk_prepared: list[PreparedCase]) -> None:
    _, both = passes(tmp_path, risk_prepared, (1, 1))
    assert not better_seen(*both, risk_prepared)
    both[1].store.write_knowledge(knowledge(both[0], risk_prepared) + 0.9 * LEAST_GAIN)
    assert not better_seen(*both, risk_prepared)
    both[1].store.write_knowledge(knowledge(both[0], risk_prepared) + 1.1 * LEAST_GAIN)
    assert better_seen(*both, risk_prepared)


def test_no_more_than_some_cases_are_passed_twice(tmp_path: Path, risk_prepared: list[PreparedCase]) -> None:
    assert JUDGED == 8
    networks, both = passes(tmp_path, risk_prepared, (1, -1))
    better_seen(*both, [*risk_prepared, *risk_prepared])  # of twelve the first eight by name: four cases
    assert [network.calls for network in networks] == [4, 4]


def test_two_ranks_find_what_one_finds(tmp_path: Path, risk_prepared: list[PreparedCase]) -> None:
    networks, _ = passes(tmp_path, risk_prepared, (-1, 1))
    stores = [store_of(tmp_path, risk_prepared, [], None, f"both: sign {sign}") for sign in (-1, 1)]

    def work(rank: int, gather: Any) -> bool:
        both = [
            pass_of(store, network.infer, rank=rank, world_size=2, gather=gather)
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
    networks, (source, _) = passes(tmp_path, risk_prepared, (-1, 1))
    expected = RiskPhase(source, DEFAULT).run(risk_prepared)
    networks, (source, _) = passes(tmp_path / "again", risk_prepared, (-1, 1))
    run = source.run

    def interrupted(cases: list[PreparedCase]) -> None:
        run(cases)
        source.drop(cases)

    source.run = interrupted  # type: ignore[method-assign,assignment]
    assert RiskPhase(source, DEFAULT).run(risk_prepared).to_json() == expected.to_json()
    assert networks[0].calls == 12
