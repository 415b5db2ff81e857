"""The drawn patches and their order equal those recorded with ``torchio.Queue`` and those of TorchIO's samplers."""

import pytest
import torch
import torchio as tio
from prepared_volumes import write_cohort
from scipy.ndimage import gaussian_filter

from riskft.data.patches.centres import places
from riskft.data.patches.queue import PatchLoader
from riskft.data.patches.sampling import BalancedRiskSampling, BalancedSampling, RiskSampling, UniformSampling
from riskft.data.patches.subjects import TrainingMaps
from riskft.data.patches.volumes import training_patches

PATCH = 6, 6, 4

# per epoch the subject and the last voxel (x, y, z in two digits each) of the patches, and the next random number
RECORDED = {
    (BalancedSampling, 0, 1, 7, 0, False): {
        1: "1:70904 3:50706 1:71003 1:50906 3:50607 3:60705 2:130507 4:50405 2:130808 2:50606 4:50406 4:50403 0:80804 "
        "0:70903 0.998022",
        3: "0:50603 0:50609 2:50503 2:140705 2:70604 0:90806 4:50403 1:61206 4:50403 1:81304 4:50406 1:60603 3:50505 "
        "3:50505 0.307092",
    },
    (UniformSampling, 0, 1, 100, 0, False): {
        3: "1:81303 0:60508 3:70603 4:50408 4:50408 1:51306 1:70507 0:90906 4:50408 0:61007 2:110906 2:110603 3:60607 "
        "3:70605 0.340044",
    },
    (RiskSampling, 1, 2, 4, 0, False): {
        1: "1:61106 1:71006 1:80905 4:50404 4:50403 4:50403 3:70707 3:70707 0.488645",
        3: "0:50503 0:100606 0:80703 4:50403 4:50404 4:50407 2:50603 2:130903 0.822191",
    },
    (BalancedRiskSampling, 0, 1, 7, 0, False): {
        3: "0:50603 0:50703 2:50503 2:140710 2:80605 0:90806 4:50403 1:61303 4:50404 1:81303 4:50406 1:60605 3:50504 "
        "3:50505 0.307092",
    },
    # each step takes five random numbers, as dropout does
    (BalancedSampling, 0, 1, 7, 0, True): {
        3: "0:50603 0:50609 2:50503 2:140705 2:70604 0:90806 4:50407 4:50406 1:71304 1:71204 1:60807 4:50403 3:50504 "
        "3:50505 0.823849",
    },
    (BalancedSampling, 0, 1, 7, 1, False): {
        1: "3:50506 1:71003 3:50706 3:50607 1:80805 1:70807 4:50406 2:60906 2:60609 2:100611 4:50407 4:50404 0:80706 "
        "0:100708 0.939851",
        3: "2:50503 2:70604 0:90806 2:140705 0:90905 0:50805 4:50403 1:60503 4:50405 1:80906 4:50408 1:70603 3:50503 "
        "3:70504 0.370627",
    },
}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("prepared") / "cases")


@pytest.mark.parametrize(
    "setting", [key if not key[4] else pytest.param(key, marks=pytest.mark.slow) for key in RECORDED]
)
def test_patches_without_augmentation_are_the_recorded_ones(cohort, setting):
    sampling, rank, world_size, length, workers, dropout = setting
    cases, weights = cohort
    chosen = sampling(0.5) if sampling is BalancedRiskSampling else sampling()
    source = training_patches(cases, TrainingMaps(weights), (), PATCH, chosen, 3, per_volume=3)
    loader = PatchLoader(source, 2, length, workers, rank, world_size, seed=7)
    for epoch, expected in RECORDED[setting].items():
        loader.sampler.set_epoch(epoch)
        found = []
        for batch in loader:
            if dropout:
                torch.rand(5)
            found += [f"{name[1:]}:{int(image.max())}" for name, image in zip(batch.subjects, batch.image, strict=True)]
        assert " ".join([*found, f"{torch.rand(1).item():.6f}"]) == expected


@pytest.mark.parametrize("patch", [(8, 8, 8), (17, 6, 23), (24, 20, 28)])
@pytest.mark.parametrize("classes", [2, 4])
def test_centres_are_those_of_torchio(patch, classes):
    """TorchIO adds up the probabilities of all voxels; riskft counts the classes in slices."""
    generator = torch.Generator().manual_seed(classes)
    field = torch.from_numpy(gaussian_filter(torch.rand(26, 22, 30, generator=generator).numpy(), 3))
    edges = torch.quantile(field, torch.linspace(0.6, 0.95, classes - 1))
    label = torch.bucketize(field, edges).to(torch.uint8)
    label[:3] = 255
    subject = tio.Subject(label=tio.LabelMap(tensor=label[None]))
    chances = {0: 0.33, **dict.fromkeys(range(1, classes), 0.67 / (classes - 1))}
    sampler = BalancedSampling().build(patch, classes)
    assert sampler.label_probabilities_dict == pytest.approx(chances)
    # near the border, riskft's sampler changes TorchIO's probabilities; see test_sampling.py
    oracle = tio.LabelSampler(patch, "label", chances) if patch[0] == 8 else sampler
    torch.manual_seed(3)
    expected = [found[tio.LOCATION][:3].tolist() for found in oracle(subject, 300)]
    number = torch.rand(1)
    torch.manual_seed(3)
    assert sampler.quick_places(subject, 300) is not None or patch[0] > 8
    torch.manual_seed(3)
    assert places(sampler, subject, 300) == expected
    assert torch.rand(1) == number


def test_a_class_near_the_border_is_left_to_torchio():
    label = torch.zeros(1, 12, 12, 12, dtype=torch.uint8)
    label[0, 0, 0, 0] = 1
    subject = tio.Subject(label=tio.LabelMap(tensor=label))
    sampler = BalancedSampling().build((6, 6, 6), 2)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert sampler.quick_places(subject, 5) is None
    assert torch.equal(torch.get_rng_state(), before)
    assert [0, 0, 0] in places(sampler, subject, 20)


def test_a_number_at_the_edge_of_a_voxel_is_left_to_torchio(monkeypatch):
    """8 voxels of equal probability: the fourth ends at 0.5, where rounding decides."""
    subject = tio.Subject(label=tio.LabelMap(tensor=torch.zeros(1, 4, 4, 4, dtype=torch.uint8)))
    sampler = BalancedSampling().build((3, 3, 3), 2)
    monkeypatch.setattr(torch, "rand", lambda count: torch.tensor([0.5]))
    assert sampler.quick_places(subject, 1) is None
    monkeypatch.setattr(torch, "rand", lambda count: torch.tensor([0.51]))
    assert sampler.quick_places(subject, 1) == [[1, 0, 0]]
