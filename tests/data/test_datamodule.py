"""The data module: splits, shares, and what it refuses."""

from collections import Counter
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
import torchio as tio

from riskft.data.datamodule import RiskDataModule
from riskft.data.io.volumes import write_channels
from riskft.data.labels import LabelMap
from riskft.data.patches.sampling import RiskSampling
from riskft.data.patches.subjects import TrainingMaps
from riskft.data.prepare.cache import PreparedCache
from riskft.data.prepare.preprocess import Preprocessing
from riskft.data.readers import ManifestReader
from riskft.data.readers.base import Reader
from riskft.data.records import Case
from riskft.data.splits import FractionSplit, ReaderSplit
from riskft.errors import InputError

SHAPE = (10, 9, 8)


class Listed(Reader):
    """Cases that are written on the spot."""

    known_labels = frozenset({0, 1, 2})

    def __init__(self, folder, splits):
        self.found = []
        for number, split in enumerate(splits):
            image = np.random.default_rng(number).uniform(1, 9, SHAPE).astype(np.float32)
            label = np.zeros(SHAPE, np.uint8)
            label[3:6, 3:6, 3:6] = 1
            label[6, 3:6, 3:6] = 2
            paths = []
            for name, array in (("t1", image), ("t2", 10 - image), ("label", label)):
                paths.append(folder / f"p{number}_{name}.nii")
                nib.save(nib.Nifti1Image(array, np.diag([1.0, 1.0, 2.0, 1.0])), paths[-1])
            self.found.append(Case(f"p{number}", {"t1": paths[0], "t2": paths[1]}, paths[2], split))

    def cases(self, modalities):
        return [
            Case(case.subject, {name: case.images[name] for name in modalities}, case.label, case.split)
            for case in self.found
        ]


SPLITS = ("train",) * 4 + ("val",) * 3 + ("test",) * 5


@pytest.fixture
def reader(tmp_path):
    return Listed(tmp_path, SPLITS)


@pytest.fixture
def make(tmp_path, reader):
    def build(stage="fit", **options):
        defaults = {
            "modalities": ["t1"],
            "labels": LabelMap({"blob": [1]}),
            "split": ReaderSplit(),
            "cache_dir": str(tmp_path / "cache"),
            "patch_size": [4, 4, 4],
            "patches_per_volume": 2,
        }
        data = RiskDataModule(reader, **{**defaults, **options})
        data.prepare_data()
        data.setup(stage)
        return data

    return build


def on_rank(data, rank, world_size):
    data.trainer = SimpleNamespace(global_rank=rank, world_size=world_size, callbacks=[])
    return data


def subjects(loader):
    return [batch.subject for batch in loader]


def test_served_batches(make):
    data = make(modalities=["t2", "t1"], augment=[tio.RandomFlip()])
    assert (data.class_names, data.num_channels) == (["background", "blob"], 2)
    assert data.labels.background == [0, 2]  # the layout's other value
    loader = data.train_dataloader()
    loader.sampler.set_epoch(0)
    batches = list(loader)
    assert len(batches) == 4 * 2 / 2
    batch = batches[0]
    assert batch.image.shape == (2, 2, 4, 4, 4)
    assert batch.label.shape == (2, 1, 4, 4, 4)
    # blob has 27 voxels; the head is every voxel but the smallest one, so nothing is cropped
    assert batch.foreground_fraction.tolist() == pytest.approx([27 / 720] * 2)
    assert batch.weight is None
    assert Counter(name for found in batches for name in found.subjects) == {f"p{n}": 2 for n in range(4)}
    assert subjects(data.val_dataloader()) == ["p4", "p5", "p6"]
    assert subjects(data.test_dataloader()) == [f"p{n}" for n in range(7, 12)]
    (volume,) = [found for found in data.val_dataloader() if found.subject == "p5"]
    assert volume.image.shape == (1, 2, *SHAPE)
    assert volume.affine.shape == (4, 4)


def test_predict_falls_back_on_the_test_cases(make, reader):
    assert subjects(make("predict").predict_dataloader()) == [f"p{n}" for n in range(7, 12)]
    unlabelled = Case("q", reader.found[0].images, None, "predict")
    reader.found.append(unlabelled)
    data = make("predict")
    assert subjects(data.predict_dataloader()) == ["q"]
    assert data.prepared_case("q").case.label is None
    assert data.prepared_case("p2").subject == "p2"
    with pytest.raises(KeyError):
        data.prepared_case("nobody")


@pytest.mark.parametrize(("split", "count"), [("val", 3), ("test", 5)])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_share_whole_volumes_without_repetition(make, split, count, world_size):
    data = make()
    shares = [subjects(getattr(on_rank(data, rank, world_size), f"{split}_dataloader")()) for rank in range(world_size)]
    first = SPLITS.index(split)
    assert sorted(name for share in shares for name in share) == sorted(f"p{first + n}" for n in range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_rank_without_a_share_repeats_a_case(make):
    data = make()
    assert [subjects(on_rank(data, rank, 5).val_dataloader()) for rank in range(5)] == [
        ["p4"], ["p5"], ["p6"], ["p4"], ["p4"]
    ]  # fmt: skip


def test_ranks_share_training_subjects(make):
    data = make()
    torch.manual_seed(3)
    data.setup("fit")
    shares = []
    for rank in (0, 1):
        loader = on_rank(data, rank, 2).train_dataloader()
        loader.sampler.set_epoch(0)
        shares.append([name for batch in loader for name in batch.subjects])
    assert not set(shares[0]) & set(shares[1])
    assert Counter(shares[0] + shares[1]) == {f"p{n}": 2 for n in range(4)}


@pytest.mark.parametrize("seed", [0, 1])
def test_few_shot_limits_nest(make, seed):
    names = {}
    for limit in (1, 2, 3, None):
        data = make(split=FractionSplit(seed=seed), train_limit=limit)
        names[limit] = {case.subject for case in data.prepared("train")}
        assert len(names[limit]) == (limit or 7 - 1 - 1)  # the reader sets five apart for test
        rest = {split: [case.subject for case in data.prepared(split)] for split in ("val", "test")}
        assert names.setdefault("rest", rest) == rest
    assert names[1] < names[2] < names[3] < names[None]


def test_a_limit_beyond_the_training_cases(make):
    with pytest.raises(InputError, match="train_limit is 5, expected 1 to 4, the people with training cases"):
        make(train_limit=5)


def test_all_bad_options_are_in_one_error(reader):
    with pytest.raises(InputError, match="The data configuration is not usable") as caught:
        RiskDataModule(
            reader,
            modalities=["t1", "t1"],
            labels=LabelMap({"blob": [1]}),
            patch_size=[4, 0, 4],
            patches_per_volume=0,
            batch_size=-1,
            queue_length=0,
        )
    assert caught.value.problems == (
        "data.patches_per_volume is 0, expected 1 or more",
        "data.batch_size is -1, expected 1 or more",
        "data.queue_length is 0, expected 1 or more",
        "data.patch_size is [4, 0, 4], expected three positive numbers of voxels",
        "data.modalities is ['t1', 't1'], expected at least one modality, each once",
    )


@pytest.mark.parametrize("patch_size", [[], [4, 4], [4, 4, 4, 4], [4, 4, -1]])
def test_a_bad_patch_size(reader, patch_size):
    with pytest.raises(InputError, match=r"data\.patch_size is "):
        RiskDataModule(reader, ["t1"], LabelMap({"blob": [1]}), patch_size=patch_size)


def test_no_modality(reader):
    with pytest.raises(InputError, match=r"data\.modalities is \[\]"):
        RiskDataModule(reader, [], LabelMap({"blob": [1]}))


@pytest.mark.parametrize(
    ("stage", "left", "split"), [("fit", "val", "train"), ("validate", "train", "val"), ("test", "train", "test")]
)
def test_a_stage_without_its_split(make, reader, stage, left, split):
    reader.found = [case for case in reader.found if case.split == left]
    with pytest.raises(InputError, match=f"no case in the split '{split}', which `{stage}` needs"):
        make(stage)


def test_fewer_patches_than_a_batch(make):
    with pytest.raises(InputError, match=r"an epoch has 8 patches, fewer than data\.batch_size \(9\)"):
        make(batch_size=9)
    data = make(batch_size=9, check_files=False)
    with pytest.raises(InputError, match=r"8 patches per rank, fewer than data\.batch_size \(9\)"):
        data.train_dataloader()


def test_files_are_checked_first(make, reader, tmp_path):
    reader.found[1].images["t1"].unlink()
    reader.found[9].images["t1"].write_bytes(b"no image")
    with pytest.raises(InputError) as caught:
        make()
    assert "p1_t1.nii" in str(caught.value)
    assert "p9_t1.nii" in str(caught.value)
    assert not (tmp_path / "cache/cases").exists()


def labels_of(data):
    """Uses the label as the weight, because any volume on the grid works."""
    return {case.subject: case.folder / "label.nii" for case in data.prepared("train")}


def test_weights_travel_with_the_patches(make):
    data = make(labels=LabelMap({"blob": [1], "tip": [2]}))
    loader = data.training_loader(TrainingMaps(labels_of(data)))
    loader.sampler.set_epoch(0)
    for batch in loader:
        torch.testing.assert_close(batch.weight.float(), batch.label.float())


def test_lightning_gets_the_maps_of_its_own_trainer(make):
    data = make(labels=LabelMap({"blob": [1], "tip": [2]}))
    made = SimpleNamespace(training_maps=TrainingMaps(labels_of(data)))
    for callbacks, expected in (([object(), made], True), ([object()], False)):
        data.trainer = SimpleNamespace(global_rank=0, world_size=1, callbacks=callbacks)
        assert (next(iter(data.train_dataloader())).weight is not None) is expected


def test_training_cases_without_a_map_are_named(make):
    data = make()
    weights = labels_of(data)
    del weights["p1"], weights["p3"]
    with pytest.raises(InputError, match="have no risk map") as caught:
        data.training_loader(TrainingMaps(weights))
    assert caught.value.problems == ("p1", "p3")


def test_eeps_travel_with_the_patches(make, tmp_path):
    data = make(labels=LabelMap({"blob": [1], "tip": [2]}))
    with pytest.raises(InputError, match="have no EEP"):
        data.training_loader(TrainingMaps(eeps={}))
    paths = {}
    for case in data.prepared("train"):
        label = case.to_subject()["label"]
        paths[case.subject] = tmp_path / f"{case.subject}.npz"
        write_channels(
            paths[case.subject], torch.cat([label.data == index for index in range(3)]).float(), label.affine
        )
    loader = data.training_loader(TrainingMaps(eeps=paths))
    loader.sampler.set_epoch(0)
    for batch in loader:
        label = batch.label.long()
        found = torch.where(label < 3, batch.eep.argmax(1, keepdim=True), label)
        torch.testing.assert_close(found, label)
        assert batch.weight is None


def test_risk_sampling_needs_maps(make):
    data = make(sampling=RiskSampling())
    with pytest.raises(InputError, match=r"add riskft\.RiskMapCallback with attach: true to trainer\.callbacks"):
        data.train_dataloader()
    loader = data.training_loader(TrainingMaps(labels_of(data)))
    loader.sampler.set_epoch(0)
    for batch in loader:  # a patch of 4 is centred on its voxel 2
        assert (batch.label[:, 0, 2, 2, 2] == 1).all()


def test_the_fingerprint_follows_the_content(make, reader):
    before = make().fingerprint()
    assert make().fingerprint() == before
    assert make().fingerprint("val") != before
    assert make(train_limit=3).fingerprint() != before
    assert make(modalities=["t2"]).fingerprint() != before
    assert make(labels=LabelMap({"blob": [1, 2]})).fingerprint() != before
    assert make(preprocessing=Preprocessing(margin=1)).fingerprint() != before
    path = reader.found[0].images["t1"]
    array = np.asarray(nib.load(path).dataobj).copy()
    array[1, 1, 1] = 5
    nib.save(nib.Nifti1Image(array, nib.load(path).affine), path)
    assert make().fingerprint() != before


def test_a_second_setup_prepares_nothing(make, monkeypatch):
    data = make()
    monkeypatch.setattr(PreparedCache, "prepare", lambda *_: pytest.fail("prepared again"))
    before = data.prepared("train")
    data.setup("test")
    assert data.prepared("train") is before


def test_new_scans_without_labels_are_all_to_predict(tiny_manifest, tmp_path):
    folder = tiny_manifest.parent
    rows = [line.split(",") for line in tiny_manifest.read_text().splitlines()[1:3]]
    manifest = tmp_path / "new.csv"
    manifest.write_text("subject,t2\n" + "".join(f"{row[0]},{folder / row[3]}\n" for row in rows))
    data = RiskDataModule(
        reader=ManifestReader(str(manifest)),
        modalities=["t2"],
        labels=LabelMap({"core": [2]}),
        train_limit=4,
        cache_dir=str(tmp_path / "cache"),
    )
    assert {split: len(cases) for split, cases in data.cases().items()} == {
        "train": 0, "val": 0, "test": 0, "predict": 2
    }  # fmt: skip
    data.prepare_data()
    data.setup("predict")
    assert subjects(data.predict_dataloader()) == ["case00", "case01"]


def test_values_that_the_data_set_s_description_names_are_background_where_no_class_takes_them(reader, tmp_path):
    class Described(ManifestReader):
        def label_map(self):
            return LabelMap({"anterior": [1], "posterior": [2]}, ignore=[7])

    data = RiskDataModule(Described(tmp_path / "x.csv"), ["t1"], LabelMap({"hind": [2]}))
    assert data.labels.background == [0, 1]
    assert data.labels.unknown([0, 1, 2, 7]) == [7]  # only the user can say what is ignored
    assert RiskDataModule(Described(tmp_path / "x.csv"), ["t1"]).class_names == ["background", "anterior", "posterior"]
    with pytest.raises(InputError, match=r"data\.labels is not set, and ManifestReader finds no description"):
        RiskDataModule(ManifestReader(tmp_path / "x.csv"), ["t1"])
