"""Transfer risk maps and risk-weighted fine-tuning for medical image segmentation.

The public API. Everything can be named by ``class_path: riskft.<name>`` in a config.
"""

from riskft import account  # noqa: F401  (first)
from riskft.data.datamodule import RiskDataModule
from riskft.data.labels import IGNORE_INDEX, LabelMap
from riskft.data.patches.sampling import (
    BalancedRiskSampling,
    BalancedSampling,
    PatchSampling,
    RiskSampling,
    UniformSampling,
)
from riskft.data.prepare.intensity import (
    ClipIntensity,
    Intensity,
    MinMaxIntensity,
    PercentileIntensity,
    PerChannelIntensity,
    ZScoreIntensity,
)
from riskft.data.prepare.preprocess import Preprocessing
from riskft.data.readers import (
    BidsReader,
    Brats2023Reader,
    FetsReader,
    IsegReader,
    ManifestReader,
    MsdReader,
    NnunetReader,
    Reader,
    UnlabelledReader,
)
from riskft.data.records import Case
from riskft.data.splits import FractionSplit, ListSplit, ReaderSplit, Split
from riskft.errors import InputError
from riskft.losses.distill import DistilledLoss
from riskft.losses.hard_voxels import FocalLoss, TopKLoss
from riskft.losses.refresh import RefreshedLoss
from riskft.losses.weighted import Loss, RiskWeightedLoss
from riskft.risk.leep import LeepConditional, expected_empirical_prediction, hardness
from riskft.risk.mapping import RiskMapping
from riskft.risk.weighting import (
    ExponentialWeight,
    LinearWeight,
    MinMaxNormalise,
    Normalise,
    PowerWeight,
    QuantileNormalise,
    RankNormalise,
    WeightFunction,
    WindowNormalise,
)
from riskft.source.output import SigmoidOutput, SoftmaxOutput, SourceOutput
from riskft.source.packages.meshnet import MeshNet
from riskft.source.packages.nnunet.network import nnunet_network
from riskft.source.source import Source
from riskft.training.average import AveragedWeights
from riskft.training.finite import FiniteLossGuard
from riskft.training.freeze import BackboneFreeze
from riskft.training.l2sp import L2SP
from riskft.training.module import RiskModule
from riskft.training.panels import RiskPanelCallback
from riskft.training.risk_maps import RiskMapCallback
from riskft.training.trainer import RiskTrainer

__version__ = "0.1.0"

__all__ = [
    "IGNORE_INDEX",
    "L2SP",
    "AveragedWeights",
    "BackboneFreeze",
    "BalancedRiskSampling",
    "BalancedSampling",
    "BidsReader",
    "Brats2023Reader",
    "Case",
    "ClipIntensity",
    "DistilledLoss",
    "ExponentialWeight",
    "FetsReader",
    "FiniteLossGuard",
    "FocalLoss",
    "FractionSplit",
    "InputError",
    "Intensity",
    "IsegReader",
    "LabelMap",
    "LeepConditional",
    "LinearWeight",
    "ListSplit",
    "Loss",
    "ManifestReader",
    "MeshNet",
    "MinMaxIntensity",
    "MinMaxNormalise",
    "MsdReader",
    "NnunetReader",
    "Normalise",
    "PatchSampling",
    "PerChannelIntensity",
    "PercentileIntensity",
    "PowerWeight",
    "Preprocessing",
    "QuantileNormalise",
    "RankNormalise",
    "Reader",
    "ReaderSplit",
    "RefreshedLoss",
    "RiskDataModule",
    "RiskMapCallback",
    "RiskMapping",
    "RiskModule",
    "RiskPanelCallback",
    "RiskSampling",
    "RiskTrainer",
    "RiskWeightedLoss",
    "SigmoidOutput",
    "SoftmaxOutput",
    "Source",
    "SourceOutput",
    "Split",
    "TopKLoss",
    "UniformSampling",
    "UnlabelledReader",
    "WeightFunction",
    "WindowNormalise",
    "ZScoreIntensity",
    "expected_empirical_prediction",
    "hardness",
    "nnunet_network",
]
