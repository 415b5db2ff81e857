"""Readers: each turns one folder layout, or a table, into cases."""

from riskft.data.readers.base import Reader
from riskft.data.readers.fets import Brats2023Reader, FetsReader
from riskft.data.readers.iseg import IsegReader
from riskft.data.readers.manifest import ManifestReader

__all__ = ["Brats2023Reader", "FetsReader", "IsegReader", "ManifestReader", "Reader"]
