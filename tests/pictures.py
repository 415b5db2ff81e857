"""Leaves out the drawing of figures, which takes half of the time of a tiny training."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

_SAVEFIG = Figure.savefig


def savefig(self: Figure, file: Any, **options: Any) -> None:
    """Writes a small black picture where a figure would be."""
    if isinstance(file, Path):
        Image.new("RGB", (8, 8)).save(file, "png")
    else:
        _SAVEFIG(self, file, **options)
