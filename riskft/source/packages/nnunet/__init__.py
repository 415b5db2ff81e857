"""nnU-Net v2: trained-model folders, plans and networks."""

from riskft.source.packages.nnunet.folder import find

__all__ = ["find"]
