"""``riskft data check`` on every layout, sound and with a dozen and more cases broken, each in another way."""

import gzip
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from layouts import SPACING, WRITERS, Files, Layout, save
from tiny_cohort import rotated_affine

from riskft.cli import main
from riskft.data.check.data_set import FaultKind

SOUND = 4  # two training cases more than the broken ones, one for validation, one for test


@dataclass(frozen=True)
class Break:
    """A way to break a case: what the check should call it, which of its files it is, and what breaks that file."""

    kind: FaultKind
    file: str
    apply: Callable[[Path], object]


def change(path: Path, alter: Callable[[np.ndarray], np.ndarray]) -> None:
    # a copy: the file, which nibabel maps into memory, is about to be written
    save(path, alter(np.array(nib.load(path).dataobj, dtype=np.float32)))


def poke(value: float) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        def alter(voxels: np.ndarray) -> np.ndarray:
            voxels[3, 4, 2] = value
            return voxels

        change(path, alter)

    return apply


def pixels(path: Path) -> Path:
    return path.with_suffix(".img") if path.suffix == ".hdr" else path


def cut_off(path: Path) -> None:
    pixels(path).write_bytes(pixels(path).read_bytes()[:-60])


def zero_spacing(path: Path) -> None:
    """Sets the second voxel edge to 0 in the bytes of the header, where NIfTI and Analyze have it alike."""
    zipped = path.suffix == ".gz"
    content = bytearray(gzip.decompress(path.read_bytes()) if zipped else path.read_bytes())
    content[84:88] = bytes(4)
    path.write_bytes(gzip.compress(bytes(content)) if zipped else bytes(content))


BREAKS = {
    "missing image": Break(FaultKind.MISSING, "image", lambda path: path.unlink()),
    "missing label": Break(FaultKind.MISSING, "label", lambda path: path.unlink()),
    "empty file": Break(FaultKind.UNREADABLE, "image", lambda path: path.write_bytes(b"")),
    "web page": Break(FaultKind.UNREADABLE, "image", lambda path: path.write_bytes(b"<html>log in</html>" * 60)),
    "cut off": Break(FaultKind.UNREADABLE, "image", cut_off),
    "cut off label": Break(FaultKind.UNREADABLE, "label", cut_off),
    "two volumes": Break(
        FaultKind.NOT_3D, "label", lambda path: change(path, lambda v: np.stack([v.reshape(v.shape[:3])] * 2, -1))
    ),
    "cropped label": Break(FaultKind.SHAPE, "label", lambda path: change(path, lambda v: v[:, :-1])),
    "moved label": Break(
        FaultKind.AFFINE,
        "label",
        lambda path: save(path, np.array(nib.load(path).dataobj), rotated_affine(SPACING, degrees=14)),
    ),
    "zero spacing": Break(FaultKind.GEOMETRY, "image", zero_spacing),
    "nan": Break(FaultKind.NON_FINITE, "image", poke(np.nan)),
    "infinite": Break(FaultKind.NON_FINITE, "image", poke(np.inf)),
    "constant": Break(FaultKind.CONSTANT, "image", lambda path: change(path, lambda v: 0 * v + 7)),
    "beyond": Break(FaultKind.BEYOND_FLOAT, "image", lambda path: change(path, lambda v: v.astype(np.float64) * 1e39)),
    "not whole": Break(FaultKind.NON_INTEGER, "label", poke(0.5)),
    "no class": Break(FaultKind.OUTSIDE_MAP, "label", poke(9)),
}

CHANNEL = Break(FaultKind.NOT_3D, "image", lambda path: change(path, lambda v: v[..., :2]))

IMPOSSIBLE = {"iseg": {"moved label"}}  # Analyze has no affine; see special_iseg


def expected_faults(name: str, layout: Layout) -> dict[str, tuple[FaultKind, str]]:
    """Breaks a training case in each way; returns kind and file of each fault by subject."""
    left = iter([*layout.cases][: -(SOUND - 1)])
    breaks = {key: way for key, way in BREAKS.items() if key not in IMPOSSIBLE.get(name, ())}
    if name == "msd":
        breaks["channel missing"] = CHANNEL
    faults = {}
    for way in breaks.values():
        subject = next(left)
        path = layout.cases[subject][layout.modalities[-1] if way.file == "image" else "label"]
        way.apply(path)
        faults[subject] = (way.kind, path.name)
    faults |= SPECIAL.get(name, lambda layout, left: {})(layout, left)
    *_, source, _, test = layout.cases
    modality = layout.modalities[0]
    leaked, origin = layout.cases[test][modality], layout.cases[source][modality]
    for path, other in {(leaked, origin), (pixels(leaked), pixels(origin))}:
        shutil.copyfile(other, path)
    faults[test] = (FaultKind.LEAKAGE, leaked.name)
    return faults


def twice(files: Files, target: Callable[[Path], Path]) -> None:
    for path in files.values():
        target(path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target(path))


def special_fets(layout, left):
    subject = next(left)
    root = Path(layout.arguments["root"])
    twice(layout.cases[subject], lambda path: root / "LGG" / path.relative_to(root))
    unlabelled = next(name for name in layout.cases if "Validation" in name)
    layout.cases[unlabelled]["label"].unlink()
    return {subject: (FaultKind.DUPLICATE_SUBJECT, ""), unlabelled: (FaultKind.NO_LABEL, "")}


def special_brats2023(layout, left):
    subject = next(left)
    root = Path(layout.arguments["root"])
    twice(layout.cases[subject], lambda path: root / "HGG" / path.relative_to(root))
    return {subject: (FaultKind.DUPLICATE_SUBJECT, "")}


def special_iseg(layout, left):
    """Analyze has no affine: a subject that somebody has converted to NIfTI, the label turned by two degrees."""
    subject = next(left)
    for kind, path in layout.cases[subject].items():
        voxels = np.array(nib.load(path).dataobj)
        path.unlink()
        pixels(path).unlink(missing_ok=True)
        save(path.with_suffix(".nii"), voxels, rotated_affine(SPACING, degrees=14 if kind == "label" else 12))
    return {subject: (FaultKind.AFFINE, layout.cases[subject]["label"].with_suffix(".nii").name)}


def special_msd(layout, left):
    layout.split["init_args"]["train"].append("BRATS_999")  # of imagesTs
    return {"BRATS_999": (FaultKind.NO_LABEL, "")}


def special_nnunet(layout, left):
    subject = next(left)
    twice(layout.cases[subject], lambda path: path.parents[1] / path.parent.name.replace("Tr", "Ts") / path.name)
    return {subject: (FaultKind.DUPLICATE_SUBJECT, "")}


def special_bids(layout, left):
    subject = next(left)
    shutil.rmtree(layout.cases[subject]["label"].parents[1])
    return {subject: (FaultKind.NO_LABEL, "")}


SPECIAL = {
    "fets": special_fets,
    "brats2023": special_brats2023,
    "iseg": special_iseg,
    "msd": special_msd,
    "nnunet": special_nnunet,
    "bids": special_bids,
}


@pytest.mark.parametrize("name", [*WRITERS])
def test_every_fault_is_in_one_report_and_no_sound_case(name, tmp_path, capsys):
    layout = WRITERS[name](tmp_path, len(BREAKS) + 3 + SOUND)
    main(["data", "check", *layout.options])
    out = capsys.readouterr().out
    assert f"{len(layout.cases) + layout.unlabelled} cases" in out
    assert "; 0 faults" in out
    assert "\n  - " not in out

    expected = expected_faults(name, layout)
    assert len({kind for kind, _ in expected.values()}) >= 12
    assert len(expected) >= 16
    with pytest.raises(SystemExit) as stopped:
        main(["data", "check", *layout.options])
    assert stopped.value.code == 1
    captured = capsys.readouterr()
    assert "Traceback" not in captured.out + captured.err
    assert len(re.findall(r"\d+ faults?: ", captured.out)) == 1
    lines = [line for line in captured.out.splitlines() if line.startswith("  - ")]
    found = {tuple(line.removeprefix("  - ").split(": ")[:2]) for line in lines}
    assert found == {(subject, kind.value) for subject, (kind, _) in expected.items()}
    for subject, (kind, file) in expected.items():
        stem = file.removesuffix(".hdr")  # of an Analyze pair, the image may be the one that is named
        assert any(line.startswith(f"  - {subject}: {kind.value}: ") and stem in line for line in lines)


@pytest.mark.parametrize(("name", "values"), [("msd", ["edema"]), ("nnunet", ["core", "rim"])])
def test_classes_of_the_data_set_s_own_description(name, values, tmp_path, capsys):
    layout = WRITERS[name](tmp_path, 5)
    options = [*layout.options]
    options[options.index("--data.labels") + 1] = json.dumps(None)
    main(["data", "check", *options])
    out = capsys.readouterr().out
    assert all(value in out for value in values)
    assert "; 0 faults" in out
