"""Trained-model folders as nnU-Net v2 writes them, with random weights."""

import copy
import json
from pathlib import Path

import numpy as np
import torch
from dynamic_network_architectures.architectures import unet
from torch import nn

# options of the tiny network in nnU-Net's axis order, every axis different
ARCH = {
    "n_stages": 3,
    "features_per_stage": [4, 6, 8],
    "conv_op": "torch.nn.modules.conv.Conv3d",
    "kernel_sizes": [[1, 3, 5], [3, 3, 5], [3, 1, 3]],
    "strides": [[1, 1, 1], [1, 2, 4], [2, 2, 1]],
    "n_conv_per_stage": [1, 2, 1],
    "n_conv_per_stage_decoder": [1, 1],
    "conv_bias": True,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
    "norm_op_kwargs": {"eps": 1e-05, "affine": True},
    "dropout_op": None,
    "dropout_op_kwargs": None,
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}
CLASSES = {
    "PlainConvUNet": unet.PlainConvUNet,
    "ResidualEncoderUNet": unet.ResidualEncoderUNet,
    "ResidualUNet": unet.ResidualUNet,
}
PROPERTIES = {
    "max": 900.0,
    "mean": 120.0,
    "median": 110.0,
    "min": -50.0,
    "percentile_00_5": -20.0,
    "percentile_99_5": 300.0,
    "std": 40.0,
}


def arch_kwargs(class_name: str) -> dict:
    options = copy.deepcopy(ARCH)
    if class_name != "PlainConvUNet":
        options["n_blocks_per_stage"] = options.pop("n_conv_per_stage")
    return options


def plans(class_name: str = "PlainConvUNet", forward=(0, 1, 2), **changes) -> dict:
    """Returns the content of plans.json; ``changes`` go into 3d_fullres."""
    fullres = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "batch_size": 2,
        "patch_size": [4, 12, 16],
        "spacing": [3.0, 1.5, 0.5],
        "normalization_schemes": ["ZScoreNormalization", "ZScoreNormalization"],
        "use_mask_for_norm": [True, True],
        "architecture": {
            "network_class_name": f"dynamic_network_architectures.architectures.unet.{class_name}",
            "arch_kwargs": arch_kwargs(class_name),
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        **changes,
    }
    return {
        "dataset_name": "Dataset001_Blobs",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": list(forward),
        "transpose_backward": [int(axis) for axis in np.argsort(forward)],
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": PROPERTIES, "1": {**PROPERTIES, "mean": 7.0}},
        "configurations": {
            "2d": {**fullres, "patch_size": [12, 16], "spacing": [1.5, 0.5]},
            "3d_lowres": {
                "inherits_from": "3d_fullres",
                "spacing": [6.0, 3.0, 1.0],
                "next_stage": "3d_cascade_fullres",
            },
            "3d_fullres": fullres,
            "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
        },
    }


def dataset(labels=None) -> dict:
    return {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": labels or {"background": 0, "shell": 1, "core": 2},
        "numTraining": 8,
        "file_ending": ".nii.gz",
    }


def original(class_name: str = "PlainConvUNet", channels: int = 2, classes: int = 3, deep_supervision: bool = False):
    """Returns nnU-Net's own network, on arrays in nnU-Net's axis order, with random weights everywhere."""
    options = {
        **arch_kwargs(class_name),
        "conv_op": nn.Conv3d,
        "norm_op": nn.InstanceNorm3d,
        "nonlin": nn.LeakyReLU,
    }
    torch.manual_seed(0)
    network = CLASSES[class_name](
        input_channels=channels, num_classes=classes, deep_supervision=deep_supervision, **options
    )
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network.eval()


def write_checkpoint(path: Path, network: nn.Module) -> Path:
    """Writes all that nnU-Net's save_checkpoint does."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.99, nesterov=True)
    content = {
        "network_weights": network.state_dict(),
        "optimizer_state": optimizer.state_dict(),
        "grad_scaler_state": None,
        "logging": {"mean_fg_dice": [np.float64(0.5)], "ema_fg_dice": [np.float64(0.5)], "lrs": [0.01]},
        "_best_ema": np.float64(0.5),
        "current_epoch": 1,
        "init_args": {"plans": {"plans_name": "nnUNetPlans"}, "configuration": "3d_fullres", "fold": 0,
                      "dataset_json": {}, "device": torch.device("cpu")},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1, 2),
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


def write_folder(
    root: Path, content: dict, description: dict | None = None, folds=("fold_0",), network: nn.Module | None = None
) -> Path:
    """Writes a trained-model folder; returns it."""
    folder = root / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    network = original() if network is None else network
    for fold in folds:
        write_checkpoint(folder / fold / "checkpoint_final.pth", network)
    (folder / "plans.json").write_text(json.dumps(content))
    (folder / "dataset.json").write_text(json.dumps(description or dataset()))
    return folder
