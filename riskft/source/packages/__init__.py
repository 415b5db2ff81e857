"""Trained models that describe themselves: nnU-Net folders, MONAI bundles, MeshNet files."""

from pathlib import Path

from riskft.source.packages import bundle, meshnet, nnunet
from riskft.source.packages.base import Package

__all__ = ["Package", "find_package"]


def find_package(path: Path) -> Package | None:
    """Returns the description of a trained model at ``path`` (a folder or file), or None if it has none.

    Raises:
        InputError: If the model is broken or of a kind that riskft cannot use.
    """
    return next((found for find in (nnunet.find, bundle.find, meshnet.find) if (found := find(path))), None)
