import functools
import json
import logging
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy import ndimage

from riskft.data.readers.fets import FetsReader
from riskft.data.readers.iseg import IsegReader
from riskft.errors import InputError
from riskft.phantom import CohortPaths, cohort, write_cohort
from riskft.phantom.anatomy import load_template
from riskft.phantom.grid import BOX, Grid, smooth_noise
from riskft.phantom.scanner import (
    FLAIR,
    PD_T1_T2,
    T1W,
    T2W,
    TISSUES,
    enhanced_t1,
    inversion_recovery,
    jittered,
    mix,
    spin_echo,
    spoiled_gradient_echo,
)
from riskft.phantom.subject import PhantomSubject, patient

pytest.importorskip("nilearn")

SPACING = 4.0
MODALITIES = ("t1", "t1ce", "t2", "flair")


cached_template = functools.cache(load_template)


@pytest.fixture(scope="session", autouse=True)
def one_template() -> Iterator[None]:
    # loading it is most of what these tests cost
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cohort, "load_template", cached_template)
        yield


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> CohortPaths:
    return write_cohort(tmp_path_factory.mktemp("phantom"), subjects=3, spacing=SPACING)


@pytest.fixture(scope="session")
def simulated() -> PhantomSubject:
    return patient(cached_template(SPACING), Grid(SPACING), seed=0, number=1)


def load(path: Path) -> np.ndarray:
    return np.asanyarray(nib.load(path).dataobj)


def fets(paths: CohortPaths, number: int, kind: str) -> Path:
    name = f"FeTS21_Phantom_{number:03d}"
    return paths.fets / name / f"{name}_{kind}.nii.gz"


def contents(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


class TestSignal:
    @pytest.mark.parametrize(
        ("sequence", "expected"),
        [
            # 0.7 (1 - e^-1) e^-0.5
            (functools.partial(spin_echo, tr=1000, te=40), 0.268380),
            # 0.7 sin 90 (1 - e^-1) / 1 * e^-0.5: at 90 degrees a gradient echo is a spin echo
            (functools.partial(spoiled_gradient_echo, tr=1000, te=40, flip=90), 0.268380),
            # e^-0.02 = 0.980199: 0.7 * 0.5 * 0.019801 / (1 - 0.866025 * 0.980199) * e^-0.05
            (functools.partial(spoiled_gradient_echo, tr=20, te=4, flip=30), 0.043623),
            # 0.7 |1 - 2 e^-2 + e^-8| e^-1
            (functools.partial(inversion_recovery, tr=8000, te=80, ti=2000), 0.187902),
            # before the null point the magnitude is taken: 0.7 |1 - 2 e^-0.5 + e^-8|
            (functools.partial(inversion_recovery, tr=8000, te=0, ti=500), 0.148908),
        ],
    )
    def test_matches_numbers_computed_by_hand(self, sequence, expected):
        assert sequence(np.array(0.7), np.array(1000.0), np.array(80.0)) == pytest.approx(expected, abs=2e-6)

    def test_flair_nulls_csf(self):
        _, t1, _ = PD_T1_T2[TISSUES.index("csf")]
        null = t1 * np.log(2 / (1 + np.exp(-FLAIR.keywords["tr"] / t1)))
        assert FLAIR.keywords["ti"] == pytest.approx(null, rel=0.01)

    def test_contrast_agent_shortens_t1(self):
        # 1 / (1 / 1000 + 0.0037 * 1) ms
        assert enhanced_t1(np.array(1000.0), np.array(1.0)) == pytest.approx(212.766, abs=1e-3)
        assert enhanced_t1(np.array(1000.0), np.array(0.0)) == pytest.approx(1000)

    def test_tissues_are_ordered_as_radiologists_see_them(self):
        t1, t2, flair = (dict(zip(TISSUES, s(*PD_T1_T2.T), strict=True)) for s in (T1W, T2W, FLAIR))
        assert t1["white matter"] > t1["oedema"] > t1["grey matter"] > t1["necrotic core"] > t1["csf"]
        assert t2["csf"] > t2["necrotic core"] > t2["oedema"] > t2["grey matter"] > t2["white matter"]
        assert flair["oedema"] > flair["enhancing tumour"] > flair["white matter"] > 5 * flair["csf"]

    def test_jitter_changes_every_parameter_a_little(self):
        other = jittered(T1W, np.random.default_rng(0))
        for name in ("tr", "te", "flip"):
            assert other.keywords[name] != T1W.keywords[name]
            assert other.keywords[name] == pytest.approx(T1W.keywords[name], rel=0.1)

    def test_tissues_mix_by_volume(self):
        fractions = np.array([[0.5, 0.0], [0.5, 0.0], [0.0, 1.0]], dtype=np.float32)
        csf, grey, white = T2W(*PD_T1_T2.T)[:3]
        assert mix(fractions, PD_T1_T2, T2W) == pytest.approx([(csf + grey) / 2, white], rel=1e-5)

    def test_only_the_rim_enhances(self):
        fractions = np.eye(6, dtype=np.float32)
        before = mix(fractions, PD_T1_T2, T1W)
        after = mix(fractions, PD_T1_T2, T1W, np.full(6, 0.2, dtype=np.float32))
        rim = TISSUES.index("enhancing tumour")
        assert after[rim] > 1.5 * before[rim]
        assert np.delete(after, rim) == pytest.approx(np.delete(before, rim))


class TestNoise:
    def test_is_the_same_field_on_every_grid(self):
        fine, coarse = (smooth_noise(np.random.default_rng(3), Grid(spacing), 20) for spacing in (2.0, 4.0))
        assert coarse == pytest.approx(fine[::2, ::2, ::2][tuple(map(slice, coarse.shape))], abs=1e-5)

    def test_has_zero_mean_and_unit_variance(self):
        field = smooth_noise(np.random.default_rng(0), Grid(4.0), 8)
        assert field.mean() == pytest.approx(0, abs=0.1)
        assert field.std() == pytest.approx(1, abs=0.1)


class TestSubject:
    def test_fractions_fill_the_brain(self, simulated):
        brain = simulated.images["t1"] > 0
        total = simulated.fractions.sum(axis=0)
        assert total[brain] == pytest.approx(1, abs=1e-4)
        assert (total[~brain] == 0).all()
        assert simulated.fractions.min() > -1e-6

    def test_pure_tissues_have_their_contrast(self, simulated):
        def mean(modality: str, tissue: str) -> float:
            pure = simulated.fractions[TISSUES.index(tissue)] > 0.85
            assert pure.sum() > 20
            return float(simulated.images[modality][pure].mean())

        assert mean("t1", "white matter") > mean("t1", "grey matter") > mean("t1", "csf")
        assert mean("t2", "csf") > mean("t2", "grey matter") > mean("t2", "white matter")
        assert mean("flair", "csf") < 0.4 * mean("flair", "grey matter")
        assert mean("t1ce", "enhancing tumour") > 1.2 * mean("t1ce", "white matter")
        assert mean("t1", "enhancing tumour") < mean("t1", "white matter")

    def test_oedema_prefers_white_matter(self, simulated):
        _, grey, white = simulated.fractions[:3]
        oedema = simulated.labels == 2
        near = ndimage.binary_dilation(simulated.labels > 0, iterations=2) & (simulated.labels == 0)
        assert (white / (white + grey + 1e-6))[oedema].mean() > (white / (white + grey + 1e-6))[near].mean()

    def test_voxel_size_does_not_change_the_anatomy(self, simulated):
        finer = patient(cached_template(3.0), Grid(3.0), seed=0, number=1)
        volumes = [(s.images["t1"] > 0).sum() * size**3 for s, size in ((simulated, SPACING), (finer, 3.0))]
        assert volumes[0] == pytest.approx(volumes[1], rel=0.03)


class TestTumours:
    @pytest.mark.parametrize("number", [1, 2, 3])
    def test_labels_and_size(self, phantom, number):
        seg, brain = load(fets(phantom, number, "seg")), load(fets(phantom, number, "t1")) > 0
        assert set(np.unique(seg)) == {0, 1, 2, 4}
        assert (seg == 2).sum() >= 50
        assert (seg == 4).sum() >= 50
        assert 0.01 < (seg > 0).sum() / brain.sum() < 0.09
        assert not (seg > 0)[~brain].any()

    @pytest.mark.parametrize("number", [1, 2, 3])
    def test_core_in_rim_in_oedema(self, phantom, number):
        seg, brain = load(fets(phantom, number, "seg")), load(fets(phantom, number, "t1")) > 0
        core, solid, whole = seg == 1, np.isin(seg, (1, 4)), seg > 0
        assert not (ndimage.binary_dilation(core) & brain & ~whole).any()
        assert not (ndimage.binary_dilation(solid) & brain & ~whole).any()
        around_core = ndimage.binary_dilation(core) & ~core
        assert (seg[around_core] == 4).mean() > 0.7

    @pytest.mark.parametrize("number", [1, 2, 3])
    def test_contrast_in_the_written_files(self, phantom, number):
        seg = load(fets(phantom, number, "seg"))
        images = {kind: load(fets(phantom, number, kind)) for kind in MODALITIES}
        rest = (seg == 0) & (images["t1"] > 0)
        means = {
            kind: {label: image[seg == label].mean() for label in (1, 2, 4)} | {0: image[rest].mean()}
            for kind, image in images.items()
        }
        assert means["flair"][2] > 1.2 * means["flair"][0]
        assert means["t1ce"][4] > 1.3 * max(means["t1ce"][label] for label in (0, 1, 2))
        assert means["t1"][1] < means["t1"][0]
        assert means["t2"][1] > means["t2"][2] > means["t2"][0]

    def test_variants(self):
        template, grid = cached_template(SPACING), Grid(SPACING)
        solid, double = (patient(template, grid, seed=0, number=number).labels for number in (4, 5))
        assert set(np.unique(solid)) == {0, 2, 4}
        _, pieces = ndimage.label(np.isin(double, (1, 4)), structure=np.ones((3, 3, 3)))
        assert pieces >= 2


class TestLayouts:
    @pytest.mark.parametrize("number", [1, 2, 3])
    def test_fets_files_agree(self, phantom, number):
        images = [nib.load(fets(phantom, number, kind)) for kind in (*MODALITIES, "seg")]
        assert [image.get_data_dtype() for image in images] == [np.int16] * 4 + [np.uint8]
        for image in images:
            assert image.shape == Grid(SPACING).shape
            assert len(set(image.shape)) == 3
            assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
            assert image.header.get_zooms() == (SPACING,) * 3
            assert (image.affine == images[0].affine).all()
            assert image.header["qform_code"] == image.header["sform_code"] == 4
        masks = [load(fets(phantom, number, kind)) > 0 for kind in MODALITIES]
        assert all((mask == masks[0]).all() for mask in masks)
        assert 0.1 < masks[0].mean() < 0.6

    def test_fets_affine_leads_to_mni_space(self, phantom):
        image = nib.load(fets(phantom, 1, "t1"))
        centre = nib.affines.apply_affine(image.affine, ndimage.center_of_mass(load(fets(phantom, 1, "t1")) > 0))
        assert centre == pytest.approx([0, -20, 10], abs=10)
        last = nib.affines.apply_affine(image.affine, np.array(image.shape) - 1)
        assert last[:2] == pytest.approx([BOX[0][0], BOX[1][0]])

    def test_template_is_not_mirrored(self, phantom, simulated):
        image = nib.load(fets(phantom, 1, "seg"))
        to_grid = np.linalg.inv(Grid(SPACING).affine) @ image.affine
        labelled = np.argwhere(load(fets(phantom, 1, "seg")) > 0)
        there = np.rint(nib.affines.apply_affine(to_grid, labelled)).astype(int)
        assert (simulated.labels[tuple(there.T)] > 0).all()

    @pytest.mark.parametrize("number", [1, 2, 3])
    def test_iseg_files_agree(self, phantom, number):
        t1, t2, label = (nib.load(phantom.iseg / f"subject-{number}-{kind}.hdr") for kind in ("T1", "T2", "label"))
        assert isinstance(t1, nib.AnalyzeImage)
        assert [image.get_data_dtype() for image in (t1, t2, label)] == [np.int16, np.int16, np.uint8]
        for image in (t1, t2, label):
            assert image.shape == Grid(SPACING).shape
            assert image.header.get_zooms() == (SPACING,) * 3
            assert (image.affine == t1.affine).all()
            assert nib.aff2axcodes(image.affine) == ("L", "A", "S")
        labels = np.asanyarray(label.dataobj)
        assert set(np.unique(labels)) == {0, 10, 150, 250}
        assert ((np.asanyarray(t1.dataobj) > 0) == (labels > 0)).all()
        csf, grey, white = (np.asanyarray(t1.dataobj)[labels == value].mean() for value in (10, 150, 250))
        assert white > grey > csf
        csf, grey, white = (np.asanyarray(t2.dataobj)[labels == value].mean() for value in (10, 150, 250))
        assert csf > grey > white

    def test_readers_find_all(self, phantom):
        patients = FetsReader(phantom.fets).cases(MODALITIES)
        assert [case.subject for case in patients] == [f"FeTS21_Phantom_{number:03d}" for number in (1, 2, 3)]
        brains = IsegReader(phantom.iseg).cases(["t1", "t2"])
        assert [case.subject for case in brains] == ["subject-1", "subject-2", "subject-3"]
        for case in (*patients, *brains):
            assert case.label is not None
            assert all(file.is_file() for file in case.files)

    def test_nothing_else_is_written(self, phantom):
        record = json.loads((phantom.fets.parent / "cohort.json").read_text())
        assert record["phantom"] == {"subjects": 3, "seed": 0, "spacing": SPACING, "version": cohort.VERSION}
        assert record["subjects"][2] == {"fets": "FeTS21_Phantom_003", "iseg": "subject-3"}
        assert len(contents(phantom.fets.parent)) == 3 * (5 + 6) + 1


class TestDeterminism:
    def test_fewer_subjects_are_the_same_subjects(self, phantom, tmp_path):
        write_cohort(tmp_path / "again", subjects=2, spacing=SPACING)
        first, again = contents(phantom.fets.parent), contents(tmp_path / "again")
        assert len(again) == 2 * (5 + 6) + 1
        assert all(first[name] == content for name, content in again.items() if name != "cohort.json")

    def test_seeds_differ(self, phantom, tmp_path):
        other = write_cohort(tmp_path / "other", subjects=1, seed=1, spacing=SPACING)
        assert (load(fets(phantom, 1, "t1")) != load(fets(other, 1, "t1"))).any()
        assert (load(fets(phantom, 1, "seg")) != load(fets(other, 1, "seg"))).any()

    def test_global_random_state_is_neither_used_nor_changed(self, phantom, tmp_path):
        torch.manual_seed(5)
        np.random.seed(5)  # noqa: NPY002
        random.seed(5)
        before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
        paths = write_cohort(tmp_path / "new", subjects=1, spacing=SPACING)
        assert torch.equal(before[0], torch.get_rng_state())
        assert (before[1] == np.random.get_state()[1]).all()  # noqa: NPY002
        assert before[2] == random.getstate()
        assert (load(fets(paths, 1, "t2")) == load(fets(phantom, 1, "t2"))).all()


class TestReuse:
    @pytest.fixture
    def small(self, tmp_path: Path) -> Path:
        write_cohort(tmp_path / "small", subjects=1, spacing=SPACING)
        return tmp_path / "small"

    def test_a_whole_cohort_is_not_written_again(self, small, monkeypatch):
        monkeypatch.setattr(cohort, "load_template", None)
        before = {path: path.stat().st_mtime_ns for path in small.rglob("*")}
        paths = write_cohort(small, subjects=1, spacing=SPACING)
        assert paths == CohortPaths(fets=small / "fets", iseg=small / "iseg")
        assert before == {path: path.stat().st_mtime_ns for path in small.rglob("*")}

    def test_a_lost_file_is_written_again(self, small):
        before = contents(small)
        (small / "iseg" / "subject-1-T2.img").unlink()
        write_cohort(small, subjects=1, spacing=SPACING)
        assert contents(small) == before

    @pytest.mark.parametrize("change", [{"subjects": 2}, {"seed": 1}, {"spacing": 3.5}])
    def test_other_options_are_refused(self, small, change):
        before = contents(small)
        with pytest.raises(InputError, match=r"other options.*--overwrite.*another folder"):
            write_cohort(small, **{"subjects": 1, "spacing": SPACING, **change})
        assert contents(small) == before

    def test_overwrite_leaves_nothing_of_the_old_cohort(self, phantom, tmp_path):
        out = tmp_path / "cohort"
        write_cohort(out, subjects=2, seed=1, spacing=SPACING)
        write_cohort(out, subjects=1, spacing=SPACING, overwrite=True)
        assert len(contents(out)) == 5 + 6 + 1
        assert (
            load(fets(phantom, 1, "t1")) == load(out / fets(phantom, 1, "t1").relative_to(phantom.fets.parent))
        ).all()

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_other_folders_are_never_touched(self, tmp_path, overwrite):
        (tmp_path / "fets").mkdir()
        (tmp_path / "fets" / "mine.txt").write_text("precious")
        with pytest.raises(InputError, match="another folder"):
            write_cohort(tmp_path, subjects=1, spacing=SPACING, overwrite=overwrite)
        assert contents(tmp_path) == {"fets/mine.txt": b"precious"}

    def test_a_foreign_record_is_refused(self, tmp_path):
        (tmp_path / "cohort.json").write_text('["something else"]')
        with pytest.raises(InputError, match="no phantom cohort"):
            write_cohort(tmp_path, subjects=1, overwrite=True)

    def test_a_file_is_refused(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(InputError, match="is a file"):
            write_cohort(tmp_path / "file")

    def test_a_killed_run_is_continued(self, phantom, tmp_path, monkeypatch):
        def killed(root, number, subject, grid):
            if number == 2:
                raise KeyboardInterrupt
            return write_iseg(root, number, subject, grid)

        write_iseg = cohort.write_iseg
        monkeypatch.setattr(cohort, "write_iseg", killed)
        with pytest.raises(KeyboardInterrupt):
            write_cohort(tmp_path, subjects=3, spacing=SPACING)
        assert not (tmp_path / "cohort.json").exists()
        assert (tmp_path / ".phantom-in-progress").exists()
        done = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*") if path.is_file()}
        assert len(done) == 2 * 5 + 6 + 1

        with pytest.raises(InputError, match="--overwrite"):
            write_cohort(tmp_path, subjects=2, spacing=SPACING)
        monkeypatch.setattr(cohort, "write_iseg", write_iseg)
        write_cohort(tmp_path, subjects=3, spacing=SPACING)
        assert not (tmp_path / ".phantom-in-progress").exists()
        assert all(path.stat().st_mtime_ns == time for path, time in done.items() if path.exists())
        assert contents(tmp_path) == contents(phantom.fets.parent)

    def test_a_run_killed_before_its_record_only_writes_that(self, small, monkeypatch):
        before = contents(small)
        (small / "cohort.json").rename(small / ".phantom-in-progress")
        monkeypatch.setattr(cohort, "load_template", None)
        write_cohort(small, subjects=1, spacing=SPACING)
        assert contents(small) == before


class TestInput:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"subjects": 0}, "subjects: expected 1 to 999, got 0"),
            ({"seed": -1}, "seed: expected at least 0, got -1"),
            ({"spacing": 0.5}, "spacing: expected 1.0 to 4.0 mm, got 0.5"),
            ({"spacing": 8}, "got 8"),
        ],
    )
    def test_bad_options(self, tmp_path, options, message):
        with pytest.raises(InputError, match=message):
            write_cohort(tmp_path / "new", **options)
        assert not (tmp_path / "new").exists()

    def test_without_nilearn_the_message_says_how_to_get_it(self, tmp_path, monkeypatch):
        monkeypatch.setattr(cohort, "load_template", load_template)
        monkeypatch.setitem(sys.modules, "nilearn", None)
        with pytest.raises(InputError, match=r"pip install 'riskft\[phantom\]'"):
            write_cohort(tmp_path, subjects=1)

    def test_one_line_in_the_log_where_there_is_no_terminal(self, tmp_path, caplog, capsys):
        with caplog.at_level(logging.INFO, logger="riskft"):
            write_cohort(tmp_path, subjects=1, spacing=SPACING)
        assert len([record for record in caplog.records if "phantom cohort" in record.message]) == 1
        assert capsys.readouterr().out == ""
