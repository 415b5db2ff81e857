"""What the data check finds in headers: those that programs read differently, and sizes that no scan has.

A NIfTI header may state the place of its voxels twice (qform and sform), once, or not at all, and in units that some
programs ignore. riskft follows nibabel. SimpleITK reads the file as ITK-SNAP, 3D Slicer and nnU-Net do.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813  (its documentation's name)

from riskft.data.findings import FaultKind, Report, WarningKind
from riskft.data.io.formats import stored_header
from riskft.data.io.grid import TOLERANCE_MM, VolumeFile, corner_distance, times

ITK = "SimpleITK, ITK-SNAP and 3D Slicer"
QFORM = "programs that prefer the qform"
VOXEL_MM = (0.05, 20.0)  #: Shortest and longest voxel edge that a scan of a body part is expected to have, in mm.
VOLUME_MM = (10.0, 2000.0)  #: Bounds of the longest edge of such a scan, in mm.
_UNITS = {1: "metres", 3: "micrometres"}  # of xyzt_units, where 2 is mm and 0 is unknown
_ADVICE = {
    WarningKind.HEADER: "Correct the header",
    WarningKind.SIZE: "Correct the header if its numbers are not in mm",
}
_ONE_AT_A_TIME = Lock()  #: The check reads in threads, and ITK's NIfTI library keeps global state.
_RIGHT_ANGLE = 1e-4  # cosine between axes above which SimpleITK rejects a file


def check_headers(volumes: Sequence[VolumeFile], report: Report) -> None:
    """Reports odd headers of a case's files, and files that other programs do not place together."""
    elsewhere = [_elsewhere(volume) for volume in volumes]
    messages: dict[tuple[WarningKind, str], list[Path]] = {}
    for volume, other in zip(volumes, elsewhere, strict=True):
        for kind, message in ((WarningKind.HEADER, other.message(volume)), (WarningKind.SIZE, _odd_size(volume))):
            if message:
                messages.setdefault((kind, message), []).append(volume.path)
    for (kind, message), (path, *others) in messages.items():
        also = f"; the same in {', '.join(other.name for other in others)}" if others else ""
        report(kind, path, f"{message}{also}. {_ADVICE[kind]}")
    first, first_elsewhere = volumes[0], elsewhere[0]
    for volume, other in zip(volumes[1:], elsewhere[1:], strict=True):
        if volume.shape != first.shape or volume.affine is None or first.affine is None:
            continue
        if corner_distance(first.shape, volume.affine - first.affine) > TOLERANCE_MM:
            continue  # a fault already
        for program in {**first_elsewhere.affines, **other.affines}:
            one, two = first_elsewhere.affines.get(program, first.affine), other.affines.get(program, volume.affine)
            apart = 0.0 if one is None or two is None else corner_distance(first.shape, two - one)
            if apart > TOLERANCE_MM:
                message = (
                    f"{program} place a corner {apart:.3g} mm from that of {first.path.name}, though riskft places "
                    f"them together. Write the same qform, sform and unit into both"
                )
                report(FaultKind.AFFINE, volume.path, message)
                break


@dataclass(frozen=True)
class _Elsewhere:
    """How other programs read a file."""

    #: Voxel indices to RAS+ mm, shape 4 x 4, by program; None if it cannot open the file.
    affines: dict[str, npt.NDArray[np.float64] | None]
    causes: list[str]  #: What is ambiguous in the header, as clauses.

    def message(self, volume: VolumeFile) -> str:
        """Returns how the programs differ, without the full stop; empty if they agree."""
        own = volume.affine
        others = {
            program: affine
            for program, affine in self.affines.items()
            if own is not None and (affine is None or corner_distance(volume.shape, affine - own) > TOLERANCE_MM)
        }
        if own is None or not others:
            return ""
        program, affine = next(iter(others.items()))
        cause = " and ".join(self.causes) or "the header can be read in more than one way"
        theirs = "refuse to open it" if affine is None else f"read {_described(affine, own)}"
        return f"{cause}: riskft reads {_described(own, affine)}, as nibabel does; {program} {theirs}"


def _elsewhere(volume: VolumeFile) -> _Elsewhere:
    if volume.affine is None or not isinstance(volume.source, nib.Nifti1Pair):
        return _Elsewhere({}, [])
    stored = [float(edge) for edge in stored_header(volume.source)["pixdim"][1:4]]
    if not np.isfinite(stored).all() or 0 in stored:
        return _Elsewhere({}, [])  # a fault already
    # SimpleITK cannot read NIfTI-2, which is no fault of the file
    affines = {} if isinstance(volume.source, nib.Nifti2Pair) else {ITK: _itk_affine(volume.path)}
    header = volume.source.header
    causes = []
    if unit := _UNITS.get(int(header["xyzt_units"]) & 7):
        causes.append(f"the header's unit is {unit}, which nibabel reads as mm")
    sform, qform = int(header["sform_code"]) > 0, int(header["qform_code"]) > 0
    if not sform and not qform:
        causes.append("neither the qform nor the sform is set (their codes are 0)")
    if sform and qform and (other := _qform(volume.source)) is not None:
        affines[QFORM] = other
        if (apart := corner_distance(volume.shape, other - volume.affine)) > TOLERANCE_MM:
            causes.append(f"the qform places a corner {apart:.3g} mm from where the sform has it")
    if min(stored) < 0:
        causes.append(f"the spacing in pixdim is negative ({times(stored)} mm)")
    elif sform and not np.allclose(stored, volume.spacing, rtol=1e-3):
        causes.append(f"the spacing is {times(stored)} mm in pixdim and {times(volume.spacing)} mm in the sform")
    if (angle := _shear(volume.affine)) > _RIGHT_ANGLE:
        causes.append(f"the axes are sheared by {np.degrees(np.arcsin(angle)):.2g} degrees")
    if not causes and affines.get(ITK, volume.affine) is None:
        del affines[ITK]  # rejected for another reason than the header, such as .bz2 or a damaged archive
    return _Elsewhere(affines, causes)


def _itk_affine(path: Path) -> npt.NDArray[np.float64] | None:
    """Returns SimpleITK's affine, converted from LPS to RAS; None if it rejects the file."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO("NiftiImageIO")
    reader.SetFileName(str(path))
    with _ONE_AT_A_TIME:
        try:
            reader.ReadImageInformation()
        except RuntimeError:
            return None
    dimension = reader.GetDimension()
    axes = min(dimension, 3)
    direction = np.reshape(reader.GetDirection(), (dimension, dimension))[:axes, :axes]
    affine = np.eye(4)
    affine[:axes, :axes] = direction * np.array(reader.GetSpacing()[:axes])
    affine[:axes, 3] = reader.GetOrigin()[:axes]
    affine[:2] *= -1
    return affine


def _qform(image: Any) -> npt.NDArray[np.float64] | None:
    try:
        affine: npt.NDArray[np.float64] = image.header.get_qform()
    except ValueError:  # no rotation
        return None
    return affine


def _shear(affine: npt.NDArray[np.float64]) -> float:
    """Returns the largest cosine between two axes: 0 if they are orthogonal."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return float(np.abs(axes.T @ axes - np.eye(3)).max())


def _described(affine: npt.NDArray[np.float64], other: npt.NDArray[np.float64] | None) -> str:
    """Describes an affine in words, limited to what differs from the other one."""
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    codes = "".join(map(str, nib.aff2axcodes(affine)))
    words = [f"a spacing of {times(edges.tolist())} mm", f"axes {codes}"]
    if other is not None:
        same = np.allclose(edges, np.linalg.norm(other[:3, :3], axis=0), rtol=1e-3)
        turned = codes != "".join(map(str, nib.aff2axcodes(other)))
        words = [word for word, wanted in zip(words, (not same, turned), strict=True) if wanted]
    corner = ", ".join(f"{value:.4g}" for value in affine[:3, 3])
    return ", ".join(words) or f"the first voxel to lie at ({corner}) mm"


def _odd_size(volume: VolumeFile) -> str:
    edges = [size * edge for size, edge in zip(volume.shape, volume.spacing, strict=True)]
    usable = np.isfinite(volume.spacing).all() and 0 not in volume.spacing
    if not usable or (
        VOXEL_MM[0] <= min(volume.spacing)
        and max(volume.spacing) <= VOXEL_MM[1]
        and VOLUME_MM[0] <= max(edges) <= VOLUME_MM[1]
    ):
        return ""
    return (
        f"the voxels are {times(volume.spacing)} mm and the volume {times(edges)} mm, expected voxels of "
        f"{VOXEL_MM[0]:g} to {VOXEL_MM[1]:g} mm and a longest edge of {VOLUME_MM[0]:g} to {VOLUME_MM[1]:g} mm for a "
        "scan of a body part"
    )


@contextmanager
def silent_itk() -> Iterator[None]:
    """Keeps ITK's own warnings off the terminal: the report covers them."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)
