"""Trained models that describe themselves: nnU-Net folders, MONAI bundles, MeshNet files."""

from pathlib import Path

from riskft.source.packages import bundle, meshnet, nnunet
from riskft.source.packages.base import Package

__all__ = ["Package", "find_package"]


def find_package(path: Path) -> Package | None:
    """Returns the trained model at a path, or None; raises InputError if it is broken or riskft cannot use it."""
    return next((found for find in (nnunet.find, bundle.find, meshnet.find) if (found := find(path))), None)
