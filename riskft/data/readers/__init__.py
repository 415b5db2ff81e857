"""Readers, which turn a folder layout or a table into cases.

Shared by several: ``naming`` (paths in tables and descriptions), ``persons`` (whose scans these are), ``dataset_json``
(the description that Decathlon and nnU-Net share).
"""

from riskft.data.readers.base import Reader
from riskft.data.readers.bids import BidsReader
from riskft.data.readers.fets import Brats2023Reader, FetsReader
from riskft.data.readers.iseg import IsegReader
from riskft.data.readers.manifest import ManifestReader
from riskft.data.readers.msd import MsdReader
from riskft.data.readers.nnunet import NnunetReader
from riskft.data.readers.unlabelled import UnlabelledReader

__all__ = [
    "BidsReader",
    "Brats2023Reader",
    "FetsReader",
    "IsegReader",
    "ManifestReader",
    "MsdReader",
    "NnunetReader",
    "Reader",
    "UnlabelledReader",
]
