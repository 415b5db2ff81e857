"""nnU-Net v2: its trained-model folders, what its plans say, and its networks."""

from riskft.source.packages.nnunet.folder import find

__all__ = ["find"]
