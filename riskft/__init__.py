"""Transfer risk maps and risk-weighted fine-tuning for medical image segmentation.

The public API. Everything can be named by ``class_path: riskft.<name>`` in a config.
"""

from riskft.data.datamodule import RiskDataModule
from riskft.data.intensity import Clip, Intensity, MinMaxRange, Percentile, PerChannel, ZScore
from riskft.data.labels import IGNORE_INDEX, LabelMap
from riskft.data.preprocess import Preprocessing
from riskft.data.readers import (
    BidsReader,
    Brats2023Reader,
    FetsReader,
    FolderReader,
    IsegReader,
    ManifestReader,
    MsdReader,
    NnunetReader,
    Reader,
)
from riskft.data.records import Case
from riskft.data.sampling import BalancedSampling, PatchSampling, RiskSampling, UniformSampling
from riskft.data.splits import FractionSplit, ListSplit, ReaderSplit, Split
from riskft.errors import InputError
from riskft.finetune.finite import FiniteLoss
from riskft.finetune.freeze import BackboneFreeze
from riskft.finetune.loss import RiskWeightedLoss
from riskft.finetune.module import RiskModule
from riskft.report.callback import RiskPanelCallback
from riskft.risk.callback import RiskMapCallback
from riskft.risk.leep import LeepConditional, expected_prediction, hardness
from riskft.risk.mapping import RiskMapping
from riskft.risk.weighting import Exponential, Linear, MinMax, Normalise, Power, Quantile, Rank, Weight
from riskft.source.meshnet import MeshNet
from riskft.source.network import Source
from riskft.source.nnunet import nnunet_network
from riskft.source.output import Sigmoid, Softmax, SourceOutput
from riskft.trainer import RiskTrainer

__version__ = "0.1.0"

__all__ = [
    "IGNORE_INDEX",
    "BackboneFreeze",
    "BalancedSampling",
    "BidsReader",
    "Brats2023Reader",
    "Case",
    "Clip",
    "Exponential",
    "FetsReader",
    "FiniteLoss",
    "FolderReader",
    "FractionSplit",
    "InputError",
    "Intensity",
    "IsegReader",
    "LabelMap",
    "LeepConditional",
    "Linear",
    "ListSplit",
    "ManifestReader",
    "MeshNet",
    "MinMax",
    "MinMaxRange",
    "MsdReader",
    "NnunetReader",
    "Normalise",
    "PatchSampling",
    "PerChannel",
    "Percentile",
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
    "Sigmoid",
    "Softmax",
    "Source",
    "SourceOutput",
    "Split",
    "UniformSampling",
    "Weight",
    "ZScore",
    "expected_prediction",
    "hardness",
    "nnunet_network",
]
