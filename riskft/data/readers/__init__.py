"""Readers, which turn a folder layout or a table into cases."""

from riskft.data.readers.base import Reader
from riskft.data.readers.bids import BidsReader
from riskft.data.readers.fets import Brats2023Reader, FetsReader
from riskft.data.readers.folder import FolderReader
from riskft.data.readers.iseg import IsegReader
from riskft.data.readers.manifest import ManifestReader
from riskft.data.readers.msd import MsdReader
from riskft.data.readers.nnunet import NnunetReader

__all__ = [
    "BidsReader",
    "Brats2023Reader",
    "FetsReader",
    "FolderReader",
    "IsegReader",
    "ManifestReader",
    "MsdReader",
    "NnunetReader",
    "Reader",
]
