"""Two real processes give what one gives, to the last bit."""

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from risk_cases import TinySource, contents, phase_of, store_of
from torch import multiprocessing

from riskft.data.prepare.cache import PreparedCase
from riskft.distributed import gather_objects
from riskft.risk.leep import LeepConditional, joint_mass

pytestmark = pytest.mark.slow


def volume(index: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(index)
    probs = torch.rand(1, 4, 5, 6, 7, generator=generator).softmax(1)
    target = torch.randint(0, 3, (1, 5, 6, 7), generator=generator)
    target[:, 0] = 255
    return probs, target


def work(rank: int, world_size: int, folder: Path, prepared: list[PreparedCase]) -> None:
    """What each process does: phase 1 on its share, and the metric on its share of five volumes."""
    torch.set_num_threads(1)
    if world_size > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=world_size)
    network = TinySource(sharpness=20)
    train, others = prepared[:4], prepared[4:]
    store = store_of(folder / "store", train, others)
    phase = phase_of(store, network.infer, rank=rank, world_size=world_size, gather=gather_objects)
    summary = phase.run(train, others)
    metric = LeepConditional(4, 3, 255)
    for index in range(rank, 5, world_size):
        metric.update(*volume(index))
    result = {"summary": summary.to_json(), "calls": network.calls, "conditional": metric.compute().tolist()}
    (folder / f"{rank}.json").write_text(json.dumps(result))
    if world_size > 1:
        dist.destroy_process_group()


def test_two_processes_equal_one(tmp_path: Path, risk_prepared: list[PreparedCase]) -> None:
    prepared = risk_prepared[:5]  # four training cases and one other: shared out unevenly
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
    multiprocessing.start_processes(work, (2, two, prepared), nprocs=2, start_method="fork")
    threads = torch.get_num_threads()
    work(0, 1, one, prepared)
    torch.set_num_threads(threads)

    alone = json.loads((one / "0.json").read_text())
    ranks = [json.loads((two / f"{rank}.json").read_text()) for rank in range(2)]
    assert alone["calls"] == 5
    assert [rank["calls"] for rank in ranks] == [3, 2]
    # joint, LEEP and all statistics
    assert [rank["summary"] for rank in ranks] == [alone["summary"]] * 2
    files = contents(one / "store")
    assert len([name for name in files if name.endswith("hardness.nii")]) == 5
    assert len([name for name in files if name.endswith(".nii")]) == 15  # hardness, expected class and weights
    assert contents(two / "store") == files

    # torchmetrics' own reduction of the metric's state
    probs, target = (torch.cat(parts) for parts in zip(*(volume(index) for index in range(5)), strict=True))
    joint = joint_mass(probs, target, 3, 255)
    expected = joint / joint.sum(0)
    for result in (alone, *ranks):
        got = torch.tensor(result["conditional"], dtype=torch.float64)
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=0)
