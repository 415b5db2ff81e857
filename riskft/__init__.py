"""Transfer risk maps and risk-weighted fine-tuning for medical image segmentation.

The public API. Everything can be named by ``class_path: riskft.<name>`` in a config.
"""

from riskft.data.datamodule import RiskDataModule
from riskft.data.labels import IGNORE_INDEX, LabelMap
from riskft.data.preprocess import Preprocessing
from riskft.data.readers import Brats2023Reader, FetsReader, IsegReader, ManifestReader, Reader
from riskft.data.records import Case
from riskft.data.sampling import BalancedSampling, PatchSampling, RiskSampling, UniformSampling
from riskft.data.splits import FractionSplit, ListSplit, ReaderSplit, Split
from riskft.errors import InputError
from riskft.finetune.freeze import BackboneFreeze
from riskft.finetune.loss import RiskWeightedLoss
from riskft.finetune.module import RiskModule
from riskft.report.callback import RiskPanelCallback
from riskft.risk.callback import RiskMapCallback
from riskft.risk.leep import LeepConditional, expected_prediction, hardness
from riskft.risk.mapping import RiskMapping
from riskft.risk.weighting import Exponential, Linear, MinMax, Normalise, Power, Quantile, Rank, Weight
from riskft.source.network import Source
from riskft.trainer import RiskTrainer

__version__ = "0.1.0"

__all__ = [
    "IGNORE_INDEX",
    "BackboneFreeze",
    "BalancedSampling",
    "Brats2023Reader",
    "Case",
    "Exponential",
    "FetsReader",
    "FractionSplit",
    "InputError",
    "IsegReader",
    "LabelMap",
    "LeepConditional",
    "Linear",
    "ListSplit",
    "ManifestReader",
    "MinMax",
    "Normalise",
    "PatchSampling",
    "Power",
    "Preprocessing",
    "Quantile",
    "Rank",
    "Reader",
    "ReaderSplit",
    "RiskDataModule",
    "RiskMapCallback",
    "RiskMapping",
    "RiskModule",
    "RiskPanelCallback",
    "RiskSampling",
    "RiskTrainer",
    "RiskWeightedLoss",
    "Source",
    "Split",
    "UniformSampling",
    "Weight",
    "expected_prediction",
    "hardness",
]
