"""MetaImage and NRRD files, read by SimpleITK, with nibabel's interface and axes."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813  (its documentation's name)

from riskft.data.io.archives import check_deflated

BACKENDS = {".mha": "MetaImageIO", ".mhd": "MetaImageIO", ".nrrd": "NrrdImageIO", ".nhdr": "NrrdImageIO"}
"""ITK's reader for each ending."""

_COMPRESSED = re.compile(rb"^\s*CompressedData\s*=\s*[t1]", re.MULTILINE | re.IGNORECASE)
_DATA_FILE = re.compile(rb"^\s*ElementDataFile\s*=[ \t]*([^\r\n]+?)[ \t]*\r?(?:\n|$)", re.MULTILINE | re.IGNORECASE)

_DTYPES = {
    "UInt8": np.uint8,
    "Int8": np.int8,
    "UInt16": np.uint16,
    "Int16": np.int16,
    "UInt32": np.uint32,
    "Int32": np.int32,
    "UInt64": np.uint64,
    "Int64": np.int64,
    "Float32": np.float32,
    "Float64": np.float64,
    "ComplexFloat32": np.complex64,
    "ComplexFloat64": np.complex128,
}
_SCALARS = {getattr(sitk, f"sitk{name}"): dtype for name, dtype in _DTYPES.items()}
_VECTORS = {
    getattr(sitk, f"sitkVector{name}"): dtype for name, dtype in _DTYPES.items() if not name.startswith("Complex")
}


class ItkImage:
    """A MetaImage or NRRD file with the part of nibabel's interface that riskft uses; only its header is read.

    Args:
        path: The file.

    Attributes:
        shape: Voxels along each axis; channels of vector pixels and further axes come last.
        spacing: Voxel edge lengths in mm as stored in the header, three numbers.
        affine: Voxel indices to RAS+ mm, shape 4 x 4 (the files themselves are LPS+).

    Raises:
        ValueError: If it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader = sitk.ImageFileReader()
        # by name: otherwise ITK guesses the format from the content
        self._reader.SetImageIO(BACKENDS[path.suffix.lower()])
        self._reader.SetFileName(str(path))
        try:
            self._reader.ReadImageInformation()
        except RuntimeError as error:
            raise ValueError(_reason(error)) from error
        dimension = self._reader.GetDimension()
        axes = min(dimension, 3)
        self._vector = self._reader.GetPixelID() in _VECTORS
        channels = (self._reader.GetNumberOfComponents(),) if self._vector else ()
        self.shape: tuple[int, ...] = (*map(int, self._reader.GetSize()), *channels)
        self.spacing: tuple[float, ...] = tuple(self._reader.GetSpacing()[:axes])
        direction = np.reshape(self._reader.GetDirection(), (dimension, dimension))[:axes, :axes]
        self.affine = np.eye(4)
        self.affine[:axes, :axes] = direction * np.array(self.spacing)
        self.affine[:axes, 3] = self._reader.GetOrigin()[:axes]
        self.affine[:2] *= -1

    def get_data_dtype(self) -> np.dtype[Any]:
        """Returns the stored data type (void if it is not numeric)."""
        pixel = self._reader.GetPixelID()
        return np.dtype(_SCALARS.get(pixel, _VECTORS.get(pixel, np.void)))

    @property
    def dataobj(self) -> npt.NDArray[Any]:
        """Reads the voxels, shape ``shape``.

        Raises:
            ValueError: If they cannot be read completely, or do not match their checksum.
        """
        if BACKENDS[self._path.suffix.lower()] == "MetaImageIO":
            _check_meta_image(self._path)
        try:
            stored = sitk.GetArrayFromImage(self._reader.Execute())
        except RuntimeError as error:
            raise ValueError(_reason(error)) from error
        voxels: npt.NDArray[Any] = np.moveaxis(stored, -1, 0).T if self._vector else stored.T
        return voxels


def _check_meta_image(path: Path) -> None:
    """Compares the checksum of compressed voxels: ITK only prints that it cannot inflate them, and returns noise."""
    with path.open("rb") as stream:
        head = stream.read(1 << 16)
        named = _DATA_FILE.search(head)
        if named is None or not _COMPRESSED.search(head[: named.end()]):
            return
        if named[1].upper() == b"LOCAL":
            stream.seek(named.end())
            check_deflated(stream)
            return
    beside = path.parent / named[1].decode(errors="replace")
    if beside.is_file():  # otherwise it names many files
        with beside.open("rb") as stream:
            check_deflated(stream)


def write_itk(path: Path, array: npt.NDArray[np.generic], affine: npt.NDArray[np.float64]) -> None:
    """Writes an array (X, Y, Z) or (X, Y, Z, C) with its affine (4, 4; RAS+ mm), compressed."""
    order = (2, 1, 0, 3) if array.ndim == 4 else (2, 1, 0)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(order)), isVector=array.ndim == 4)
    columns = affine[:3] * np.array([[-1.0], [-1.0], [1.0]])
    spacing = np.linalg.norm(columns[:, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((columns[:, :3] / spacing).flatten().tolist())
    image.SetOrigin(columns[:, 3].tolist())
    sitk.WriteImage(image, str(path), useCompression=True)


def _reason(error: RuntimeError) -> str:
    """Returns the informative line of ITK's message."""
    lines = [line.strip() for line in str(error).strip().splitlines()]
    if lines[-1].startswith("Reason:"):  # errno of something else
        return "it is cut off, or not a MetaImage file"
    return lines[-1].removeprefix("[nrrd] ")
