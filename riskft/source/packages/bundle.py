"""MONAI bundle folders."""

from pathlib import Path

from riskft.source.packages.base import Package


def find(path: Path) -> Package | None:
    """Returns what the path holds, or None if it is something else."""
    return None
