"""Translates the content of nnU-Net's plans.json and dataset.json into riskft's terms; pure functions.

nnU-Net reads a scan as an array with axes z, y, x and then moves the coarsest axis to the front
(``transpose_forward``). All per-axis values in its plans are in that order; riskft's order is x, y, z.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from riskft.errors import InputError

Json = Mapping[str, Any]

# networks whose only per-axis options are kernel_sizes and strides
_UNETS = ("PlainConvUNet", "ResidualEncoderUNet", "ResidualUNet")
_AXIS_OPTIONS = ("kernel_sizes", "strides")
_FLOAT32 = 3.4e38


def entry(content: Json, key: str) -> Any:
    """Returns an entry that nnU-Net always writes; raises InputError if it is missing."""
    if not isinstance(content, Mapping) or key not in content:
        raise InputError(f"'{key}' is missing: is this file nnU-Net v2's, and complete?")
    return content[key]


def kernel_axes(plans: Json) -> tuple[int, int, int]:
    """Returns nnU-Net's array axis for each of riskft's axes x, y, z."""
    forward = list(entry(plans, "transpose_forward"))
    if sorted(forward) != [0, 1, 2]:
        raise InputError(f"transpose_forward is {forward}, expected a permutation of [0, 1, 2].")
    x, y, z = (forward.index(2 - axis) for axis in range(3))  # nnU-Net's axis j is axis forward[j] of (z, y, x)
    return x, y, z


def along_xyz(values: Sequence[Any], axes: Sequence[int]) -> list[Any]:
    """Returns three values, given in nnU-Net's axis order, in riskft's order."""
    return [values[axis] for axis in axes]


def orientation(plans: Json) -> str | None:
    """Returns the axis codes to which nnU-Net reorients scans, or None; raises InputError for 2-D or custom readers."""
    readers = {
        "SimpleITKIO": None,
        "NibabelIO": None,
        "SimpleITKIOWithReorient": "RAS",
        "NibabelIOWithReorient": "RAS",
    }
    name = entry(plans, "image_reader_writer")
    if name not in readers:
        raise InputError(f"image_reader_writer is '{name}', expected one of {', '.join(readers)}.")
    return readers[name]


def configuration(plans: Json, name: str, above: Sequence[str] = ()) -> dict[str, Any]:
    """Returns a configuration with all that it inherits; raises InputError if it does not exist or inherits itself."""
    known = entry(plans, "configurations")
    if name not in known or name in above:
        wrong = "inherits from itself" if name in above else "does not exist"
        raise InputError(f"The configuration '{name}' {wrong}; the plans have {', '.join(known)}.")
    own = dict(known[name])
    parent = own.pop("inherits_from", None)
    return own if parent is None else {**configuration(plans, parent, (*above, name)), **own}


def usable(chosen: Json) -> str | None:
    """Returns why riskft cannot use a configuration, or None if it can."""
    if len(entry(chosen, "patch_size")) != 3:
        return "is two-dimensional, and riskft trains on 3-D patches"
    if chosen.get("previous_stage") is not None:
        return f"is a cascade's second stage, which needs the segmentation of '{chosen['previous_stage']}' as input"
    return None


def architecture(chosen: Json, axes: Sequence[int]) -> tuple[str, dict[str, Any]]:
    """Returns a U-Net's class and its options, per-axis values along x, y, z; raises InputError for other networks."""
    if "architecture" in chosen:
        name = entry(chosen["architecture"], "network_class_name")
        options = dict(entry(chosen["architecture"], "arch_kwargs"))
    else:
        name, options = _old_architecture(chosen)
    if str(name).rpartition(".")[2] not in _UNETS:
        raise InputError(f"The network is {name}; riskft supports only {', '.join(_UNETS)}.")
    for key in _AXIS_OPTIONS:
        value = entry(options, key)
        if isinstance(value, Sequence):
            options[key] = [along_xyz(one, axes) if isinstance(one, Sequence) else one for one in value]
    options.pop("deep_supervision", None)
    return name, options


def _old_architecture(chosen: Json) -> tuple[str, dict[str, Any]]:
    """Returns class and options for plans before nnU-Net 2.4, which hold only the numbers of one of two networks."""
    name = entry(chosen, "UNet_class_name")
    blocks = entry(chosen, "n_conv_per_stage_encoder")
    base, most = entry(chosen, "UNet_base_num_features"), entry(chosen, "unet_max_num_features")
    return f"dynamic_network_architectures.architectures.unet.{name}", {
        "n_stages": len(blocks),
        "features_per_stage": [min(base * 2**stage, most) for stage in range(len(blocks))],
        "conv_op": "torch.nn.Conv3d",
        "kernel_sizes": entry(chosen, "conv_kernel_sizes"),
        "strides": entry(chosen, "pool_op_kernel_sizes"),
        "n_conv_per_stage" if name == "PlainConvUNet" else "n_blocks_per_stage": blocks,
        "n_conv_per_stage_decoder": entry(chosen, "n_conv_per_stage_decoder"),
        "conv_bias": True,
        "norm_op": "torch.nn.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }


def intensity(plans: Json, chosen: Json) -> dict[str, Any] | None:
    """Returns the class (by ``class_path``) that normalises like nnU-Net, or None; raises InputError without one."""
    schemes, masked = entry(chosen, "normalization_schemes"), entry(chosen, "use_mask_for_norm")
    old = plans.get("foreground_intensity_properties_by_modality", {})
    properties = plans.get("foreground_intensity_properties_per_channel", old)
    found = [
        _scheme(name, bool(mask), properties.get(str(channel), {}))
        for channel, (name, mask) in enumerate(zip(schemes, masked, strict=True))
    ]
    if all(one == found[0] for one in found):
        return found[0]
    # clipping to the range of float32 leaves a channel unchanged
    nothing = _class("ClipIntensity", low=-_FLOAT32, high=_FLOAT32, mean=0.0, std=1.0)
    return _class("PerChannelIntensity", channels=[one or nothing for one in found])


def _scheme(name: str, masked: bool, properties: Json) -> dict[str, Any] | None:
    makers: dict[str, Callable[[], dict[str, Any] | None]] = {
        "ZScoreNormalization": lambda: _class("ZScoreIntensity", masked=masked),
        "CTNormalization": lambda: _class(
            "ClipIntensity",
            low=entry(properties, "percentile_00_5"),
            high=entry(properties, "percentile_99_5"),
            mean=entry(properties, "mean"),
            std=entry(properties, "std"),
        ),
        "RescaleTo01Normalization": lambda: _class("MinMaxIntensity"),
        "NoNormalization": lambda: None,
    }
    if name not in makers:
        raise InputError(f"The normalisation is {name}; riskft supports only {', '.join(makers)}.")
    return makers[name]()


def _class(name: str, **options: Any) -> dict[str, Any]:
    return {"class_path": f"riskft.{name}", **({"init_args": options} if options else {})}


def output_channels(dataset: Json) -> tuple[tuple[str, ...], bool]:
    """Returns the names of the network's output channels, and whether they are regions, which may overlap.

    Labels give one channel each, sorted by value, background first (raises InputError if there is none). If any name
    has several values, all names but the background are regions, in the file's order.
    """
    labels = {name: value for name, value in entry(dataset, "labels").items() if name != "ignore"}
    values = {name: list(value) if isinstance(value, Sequence) else [value] for name, value in labels.items()}
    if 0 not in values.get("background", ()):
        raise InputError("'labels' has no 'background' with the value 0.")
    if any(len(group) > 1 for group in values.values()):
        return tuple(name for name, group in values.items() if set(group) != {0}), True
    by_value: dict[int, str] = {}
    for name, (value,) in values.items():
        by_value.setdefault(int(value), name)
    return tuple(by_value[value] for value in sorted(by_value)), False


def input_channels(dataset: Json) -> int:
    """Returns the number of input channels."""
    return len(dataset["modality"] if "modality" in dataset else entry(dataset, "channel_names"))
