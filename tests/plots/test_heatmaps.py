"""Panels: which slices, which way up, and what is drawn on them."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from riskft.data.io.volumes import write_nifti
from riskft.data.labels import LabelMap
from riskft.data.prepare.cache import PreparedCache, PreparedCase
from riskft.data.prepare.preprocess import Preprocessing
from riskft.data.records import Case
from riskft.evaluation.metrics import CaseScore
from riskft.plots.figure import save_figure
from riskft.plots.heatmaps import Panel, case_figure, riskiest_slices, upright
from riskft.risk.store import RiskStore
from riskft.risk.summary import RiskSummary
from riskft.training.case_panel import read_panel
from riskft.training.panels import RiskPanelCallback, best_median_worst, wandb_images

SHAPE = (6, 8, 5)
NAMES = ["background", "rim", "core"]
IGNORE = 255
Array = np.ndarray[Any, np.dtype[Any]]


def panel(**changes: Any) -> Panel:
    """A case whose riskiest foreground voxel is (3, 5, 2)."""
    rng = np.random.default_rng(0)
    truth = np.zeros(SHAPE, np.uint8)
    truth[2:4, 3:6, 1:4] = 1
    truth[3, 5, 2] = 2
    hardness = rng.random(SHAPE).astype(np.float32) * 0.1
    hardness[3, 5, 2] = 5
    base = Panel(
        subject="s1",
        image=rng.normal(0, 1, SHAPE).astype(np.float32),
        truth=truth,
        hardness=hardness,
        relative_to_prior=hardness - 0.3,
        weight=1 + hardness,
        prediction=np.where(truth == 2, 1, truth).astype(np.uint8),
        expected_class=(truth > 0).astype(np.uint8),
        spacing=(1.0, 1.5, 3.0),
    )
    return replace(base, **changes)


# -- slices -----------------------------------------------------------------------------------------------------------


def test_riskiest_slices_by_hand() -> None:
    truth, hardness = np.zeros((3, 4, 5), np.uint8), np.zeros((3, 4, 5), np.float32)
    truth[1, 1, 1], hardness[1, 1, 1] = 1, 2.0
    truth[2, 1, 3], hardness[2, 1, 3] = 2, 1.5
    truth[2, 3, 3], hardness[2, 3, 3] = 1, 1.0
    hardness[0, 2, 2] = 50  # background
    truth[0, 0, 4], hardness[0, 0, 4] = IGNORE, 99
    # x: 2.0 | 1.5 + 1.0; y: 2.0 + 1.5 | 1.0; z: 2.0 | 1.5 + 1.0
    assert riskiest_slices(hardness, truth) == (2, 1, 3)


@pytest.mark.parametrize("label", [0, IGNORE])
def test_middle_slices_without_foreground(label: int) -> None:
    assert riskiest_slices(np.ones(SHAPE, np.float32), np.full(SHAPE, label, np.uint8)) == (3, 4, 2)


@pytest.mark.parametrize(
    ("axis", "voxel", "row", "column"),
    [
        # RAS: x grows to the subject's right, y to anterior, z to superior
        (2, (0, -1, 2), 0, -1),  # axial, left anterior: top right
        (2, (-1, 0, 2), -1, 0),  # axial, right posterior: bottom left
        (1, (0, 3, -1), 0, -1),  # coronal, left superior: top right
        (1, (-1, 3, 0), -1, 0),  # coronal, right inferior: bottom left
        (0, (1, -1, -1), 0, -1),  # sagittal, anterior superior: top right
        (0, (1, 0, 0), -1, 0),  # sagittal, posterior inferior: bottom left
    ],
)
def test_upright(axis: int, voxel: tuple[int, int, int], row: int, column: int) -> None:
    volume = np.zeros(SHAPE, np.float32)
    volume[voxel] = 1
    plane = upright(volume, axis, voxel[axis])
    assert plane.shape == {0: (5, 8), 1: (5, 6), 2: (8, 6)}[axis]
    assert plane[row, column] == 1
    assert plane.sum() == 1
    assert not upright(volume, axis, (voxel[axis] + 1) % SHAPE[axis]).any()


# -- figures ----------------------------------------------------------------------------------------------------------


def panels(figure: Figure) -> list[list[Any]]:
    """The axes that show slices, as 3 rows."""
    axes = [axis for axis in figure.axes if axis.get_label() != "<colorbar>"]
    columns = len(axes) // 3
    return [axes[row * columns : (row + 1) * columns] for row in range(3)]


def shown(axes: Any, layer: int = -1) -> Array:
    return np.asarray(axes.images[layer].get_array())


TITLES = ["image", "truth", "source's expected class", "prediction"]
HEATS = ["transfer hardness (nats)", "hardness relative to prior (nats)", "weight in the loss"]
NOTHING = np.zeros(SHAPE, np.uint8)
IGNORED = np.where(np.arange(SHAPE[0])[:, None, None] < 3, IGNORE, panel().truth).astype(np.uint8)


@pytest.mark.parametrize(
    ("changes", "titles"),
    [
        ({}, [*TITLES, *HEATS]),
        ({"prediction": None}, [*TITLES[:3], *HEATS]),
        ({"prediction": None, "expected_class": None}, [*TITLES[:2], *HEATS]),
        ({"truth": NOTHING}, [*TITLES, *HEATS]),
        ({"truth": IGNORED}, [*TITLES, *HEATS]),
        ({"truth": np.ones(SHAPE, np.uint8)}, [*TITLES, *HEATS]),
        ({"truth": np.full(SHAPE, IGNORE, np.uint8)}, [*TITLES, *HEATS]),
        ({"hardness": np.zeros(SHAPE, np.float32), "weight": np.ones(SHAPE, np.float32)}, [*TITLES, *HEATS]),
        ({"image": np.zeros(SHAPE, np.float32)}, [*TITLES, *HEATS]),
    ],
    ids=[
        "all",
        "no prediction",
        "truth alone",
        "no foreground",
        "ignored",
        "all foreground",
        "all ignored",
        "no risk",
        "blank image",
    ],
)
@pytest.mark.filterwarnings("error")
def test_figure_is_drawn_and_written(tmp_path: Path, changes: dict[str, Any], titles: list[str]) -> None:
    figure = case_figure(panel(**changes), NAMES)
    assert [axes.get_title() for axes in panels(figure)[0]] == titles
    path = tmp_path / "panel.png"
    save_figure(figure, path)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        pixels = np.asarray(picture.convert("L"))
    assert pixels.shape[1] > pixels.shape[0] / 2 > 200
    assert pixels.std() > 5
    assert [file.name for file in tmp_path.iterdir()] == ["panel.png"]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("axis", range(3))
def test_a_volume_of_one_slice_is_drawn(tmp_path: Path, axis: int) -> None:
    whole = panel()
    volumes = ("image", "truth", "hardness", "relative_to_prior", "weight", "prediction", "expected_class")
    thin = {name: np.take(getattr(whole, name), [(3, 5, 2)[axis]], axis) for name in volumes}
    save_figure(case_figure(panel(**thin), NAMES), tmp_path / "panel.png")
    assert (tmp_path / "panel.png").is_file()


def test_figure_shows_the_riskiest_slices_of_each_volume() -> None:
    case = panel()
    rows = panels(case_figure(case, NAMES))
    assert [row[0].get_ylabel() for row in rows] == ["sagittal 3", "coronal 5", "axial 2"]
    for axis, (row, index) in enumerate(zip(rows, (3, 5, 2), strict=True)):
        np.testing.assert_array_equal(shown(row[0]), upright(case.image, axis, index))
        for axes, volume in zip(row[-3:], (case.hardness, case.relative_to_prior, case.weight), strict=True):
            np.testing.assert_array_equal(shown(axes), upright(volume, axis, index))
    # mm per row over mm per column: z / y, z / x, y / x
    assert [row[0].get_aspect() for row in rows] == pytest.approx([2.0, 3.0, 1.5])


def test_colours_of_the_risk_are_centred() -> None:
    row = panels(case_figure(panel(), NAMES))[2]
    limits = [axes.images[-1].get_clim() for axes in row[-3:]]
    assert limits[0][0] == 0
    assert sum(limits[1]) / 2 == pytest.approx(0, abs=1e-6)
    assert sum(limits[2]) / 2 == pytest.approx(1, abs=1e-6)
    # the same in all rows, which share a colour bar
    for other in panels(case_figure(panel(), NAMES)):
        assert [axes.images[-1].get_clim() for axes in other[-3:]] == limits


def test_overlays_hide_background_and_ignored_voxels_and_tell_classes_apart() -> None:
    truth = panel().truth.copy()
    truth[3, 5, 1] = IGNORE
    row = panels(case_figure(panel(truth=truth), NAMES))[0]
    overlay, classes = shown(row[1]), upright(truth, 0, 3)
    assert overlay.shape == (5, 8, 4)
    np.testing.assert_array_equal(overlay[..., 3] > 0, np.isin(classes, (1, 2)))
    colours = {index: {tuple(colour) for colour in overlay[classes == index][:, :3]} for index in (1, 2)}
    assert [len(colours[index]) for index in (1, 2)] == [1, 1]
    assert colours[1] != colours[2]


@pytest.mark.parametrize(("truth", "drawn"), [(panel().truth, True), (NOTHING, False), (IGNORED, True)])
def test_border_of_the_truth(truth: Array, drawn: bool) -> None:
    row = panels(case_figure(panel(truth=truth), NAMES))[2]
    assert [len(axes.collections) for axes in row[-3:]] == [int(drawn)] * 3
    if not drawn:
        return
    plane = upright(truth, 2, riskiest_slices(panel().hardness, truth)[2])
    rows, columns = np.nonzero(np.isin(plane, (1, 2)))
    corners = row[-1].collections[0].get_datalim(row[-1].transData)
    # half way between the foreground's outermost voxels and their neighbours; ignored voxels are no foreground
    assert (corners.x0, corners.x1) == pytest.approx((columns.min() - 0.5, columns.max() + 0.5))
    assert (corners.y0, corners.y1) == pytest.approx((rows.min() - 0.5, rows.max() + 0.5))


# -- Weights & Biases -------------------------------------------------------------------------------------------------


@pytest.fixture
def figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    save_figure(case_figure(panel(), NAMES), tmp_path / "s1.png")
    return tmp_path / "s1.png"


def mask_pixels(mask: Any) -> Array:
    with Image.open(mask._path) as picture:
        return np.asarray(picture)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ["truth", "prediction", "expected_class"]),
        ({"prediction": None}, ["truth", "expected_class"]),
        ({"prediction": None, "expected_class": None}, ["truth"]),
    ],
)
def test_wandb_images_carry_masks_with_class_names(figure: Path, changes: dict[str, Any], expected: list[str]) -> None:
    case = panel(**changes)
    entries = wandb_images(case, NAMES, "risk/val", figure)
    assert list(entries) == ["risk/val/s1/panel", "risk/val/s1/image", "risk/val/s1/hardness"]
    for name in ("image", "hardness"):
        image = entries[f"risk/val/s1/{name}"]
        with Image.open(image._path) as picture:
            assert picture.size == (6, 8)
        assert image._caption == "s1, axial slice 2"
        assert list(image._masks) == expected
        for kind, mask in image._masks.items():
            volume = {"truth": case.truth, "prediction": case.prediction, "expected_class": case.expected_class}[kind]
            np.testing.assert_array_equal(mask_pixels(mask), upright(volume, 2, 2))
            classes = mask._val["class_labels"]
            assert json.loads(json.dumps(classes)) == {"0": "background", "1": "rim", "2": "core", "255": "ignored"}
    with Image.open(entries["risk/val/s1/hardness"]._path) as picture:
        pixels = np.asarray(picture.convert("L")).astype(int)
    # the brightest pixel is the hardest voxel, (x, y) = (3, 5): row 8 - 1 - 5, column 6 - 1 - 3
    assert np.unravel_index(pixels.argmax(), pixels.shape) == (2, 2)


def test_wandb_image_keeps_its_grey_values(figure: Path) -> None:
    volume = np.zeros(SHAPE, np.float32)
    volume[:, 4:] = 1
    entries = wandb_images(panel(image=volume), NAMES, "risk/val", figure)
    with Image.open(entries["risk/val/s1/image"]._path) as picture:
        pixels = np.asarray(picture.convert("L"))
    assert (pixels[:4] == 255).all()  # anterior is up
    assert (pixels[4:] == 0).all()


RAS = nib.orientations.axcodes2ornt(("R", "A", "S"))

# -- read from disk ---------------------------------------------------------------------------------------------------


def case_on_disk(folder: Path, orientation: str = "RAS") -> PreparedCase:
    geometry = np.diag([1.0, 1.5, 3.0, 1.0])
    truth = panel().truth.copy()
    truth[0, 0] = 9
    write_nifti(folder / "t1.nii", panel().image, geometry)
    write_nifti(folder / "seg.nii", truth, geometry)
    case = Case("s/1", {"t1": folder / "t1.nii"}, folder / "seg.nii")
    labels = LabelMap({"rim": [1], "core": [2]}, ignore=[9])
    return PreparedCache(folder / "cache", labels, Preprocessing(crop=False, orientation=orientation)).prepare([case])[
        0
    ]


@pytest.mark.parametrize("orientation", ["RAS", "LIA", "PSR"])
def test_panel_is_read_from_cache_and_store(tmp_path: Path, orientation: str) -> None:
    case = case_on_disk(tmp_path, orientation)
    expected, store = panel(), RiskStore(tmp_path / "risk", {}, {})
    assert expected.expected_class is not None
    assert expected.prediction is not None
    geometry = case.to_subject()["image"].affine

    def prepared(array: Any) -> Any:
        """As it is on the grid that the network sees."""
        there = nib.orientations.axcodes2ornt(tuple(orientation))
        return np.ascontiguousarray(nib.apply_orientation(array, nib.orientations.ornt_transform(RAS, there)))

    store.write_hardness(
        "s/1",
        torch.from_numpy(prepared(expected.hardness)),
        torch.from_numpy(prepared(expected.expected_class)),
        geometry,
    )
    store.write_weights("s/1", torch.from_numpy(prepared(expected.weight)), geometry)
    joint = torch.tensor([[80.0], [15.0], [5.0]], dtype=torch.float64)
    summary = RiskSummary(joint, -0.5, 0.6, 0.2, [80, 15, 5], [0.1] * 3, [1.0] * 3, [0, 1], [100])
    got = read_panel((store, summary), case, prepared(expected.prediction))
    assert got.subject == "s/1"
    assert got.spacing == pytest.approx((1.0, 1.5, 3.0))
    assert got.image.shape == got.truth.shape == SHAPE
    for name in ("hardness", "weight", "expected_class", "prediction"):
        np.testing.assert_array_equal(getattr(got, name), getattr(expected, name))
    assert (got.truth[0, 0] == IGNORE).all()
    # h + log P(y); ignored voxels as they are
    prior = np.log([0.80, 0.15, 0.05])
    for index in range(3):
        inside = got.truth == index
        np.testing.assert_allclose(got.relative_to_prior[inside], expected.hardness[inside] + prior[index], rtol=1e-5)
    np.testing.assert_allclose(got.relative_to_prior[0, 0], expected.hardness[0, 0])
    assert got.relative_to_prior.dtype == np.float32
    assert isinstance(case_figure(got, NAMES), Figure)


@pytest.mark.parametrize(
    ("options", "train", "val"),
    [
        ({}, ["a", "b"], ["d"]),
        ({"cases": 1}, ["a"], ["d"]),
        ({"subjects": ["c", "d"]}, ["c"], ["d"]),
        ({"subjects": []}, [], []),
    ],
)
def test_cases_for_panels_can_be_chosen(options: dict[str, Any], train: list[str], val: list[str]) -> None:
    splits = {"train": ["a", "b", "c"], "val": ["d"]}
    data = SimpleNamespace(prepared=lambda split: [SimpleNamespace(subject=name) for name in splits[split]])
    callback = RiskPanelCallback(**options)
    for split, expected in (("train", train), ("val", val)):
        assert [case.subject for case in callback._chosen(data, split)] == expected  # type: ignore[arg-type]


def test_the_best_the_median_and_the_worst_test_case_are_drawn() -> None:
    def score(subject: str, name: str, dice: float) -> CaseScore:
        return CaseScore(subject, name, dice, float("nan"), 1, 1)

    means = {"a": 0.5, "b": 0.9, "c": 0.1, "d": 0.7}
    scores = [
        score(subject, name, mean + step) for subject, mean in means.items() for name, step in (("x", 0.1), ("y", -0.1))
    ]
    # a class that is nowhere counts nowhere, and a case without any class is none
    scores += [score("c", "z", float("nan")), score("e", "x", float("nan"))]
    assert best_median_worst(scores) == ["b", "a", "c"]  # of four the third is taken for the median
    assert best_median_worst(scores[:6]) == ["b", "a", "c"]
    assert best_median_worst(scores[:4]) == ["b", "a"]
    assert best_median_worst(scores[:2]) == ["a"]
    assert best_median_worst([]) == []
