"""Reads from a MONAI bundle what data its network takes (patch, grid, orientation, intensities) and its output."""

from collections.abc import Mapping
from typing import Any

from riskft.source.packages.bundle_config import Config, components, plain

_OTHER_INTENSITIES = ("ClipIntensityPercentilesd", "HistogramNormalized", "ThresholdIntensityd", "SavitzkyGolaySmoothd")


def data_defaults(config: Config, channels: int | None) -> dict[str, Any]:
    """Returns the literal defaults for ``data`` in a config, without what riskft cannot reproduce.

    riskft normalises per channel, so it can reproduce a joint normalisation only if it is known that there is one
    channel.
    """
    data: dict[str, Any] = {}
    inferer = config.get("inferer")
    size = plain(config, inferer.get("roi_size")) if isinstance(inferer, Mapping) else None
    size = [size] * 3 if isinstance(size, int) else size
    if _numbers(size) and all(isinstance(edge, int) for edge in size or ()):
        data["patch_size"] = size
    preprocessing: dict[str, Any] = {}
    pixdim = _option(config, "Spacingd", "pixdim")
    if isinstance(pixdim, (int, float)) and pixdim > 0:
        pixdim = [pixdim] * 3
    if _numbers(pixdim):
        preprocessing["spacing"] = [float(edge) for edge in pixdim]
    axes = _option(config, "Orientationd", "axcodes")
    if isinstance(axes, str) and len(axes) == 3:
        preprocessing["orientation"] = axes
    preprocessing |= _intensity(config, channels)
    return data | ({"preprocessing": preprocessing} if preprocessing else {})


def is_sigmoid(config: Config) -> bool:
    """Returns whether the config turns the output into probabilities by a sigmoid per channel."""
    return any(_option(config, name, "sigmoid") in (True, [True]) for name in ("Activationsd", "Activations"))


def _numbers(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(isinstance(item, (int, float)) and item > 0 for item in value)
    )


def _transforms(config: Config, name: str) -> list[dict[str, Any]]:
    """Returns the plain options of each transform of that name, except those for labels alone; duplicates once."""
    found: list[dict[str, Any]] = []
    for component in components(config):
        if component["_target_"].rpartition(".")[2] == name:
            options = {key: plain(config, value) for key, value in component.items()}
            if options.get("keys") not in ("label", ["label"]) and options not in found:
                found.append(options)
    return found


def _option(config: Config, name: str, option: str) -> Any:
    """Returns an option of the transform of that name if there is exactly one, else None."""
    found = _transforms(config, name)
    return found[0].get(option) if len(found) == 1 else None


def _intensity(config: Config, channels: int | None) -> dict[str, Any]:
    """Returns ``intensity``, and ``crop`` if it decides which voxels count; empty if riskft has no equivalent."""
    makers = (
        ("NormalizeIntensityd", _standardised),
        ("ScaleIntensityRanged", _clipped),
        ("ScaleIntensityRangePercentilesd", _between_percentiles),
        ("ScaleIntensityd", _between_extremes),
    )
    made = [make(options, channels) for name, make in makers for options in _transforms(config, name)]
    # riskft has no equivalent of several in a row
    if len(made) != 1 or made[0] is None or any(_transforms(config, name) for name in _OTHER_INTENSITIES):
        return {}
    whole_volume = made[0]["class_path"] != "riskft.ClipIntensity" and made[0]["init_args"] != {"masked": True}
    crop = {"crop": bool(_transforms(config, "CropForegroundd"))} if whole_volume else {}
    return {"intensity": made[0], **crop}


def _by_channel(options: Config, channels: int | None) -> bool:
    return channels == 1 or options.get("channel_wise") is True


def _standardised(options: Config, channels: int | None) -> dict[str, Any] | None:
    nonzero = options.get("nonzero", False)
    if not _by_channel(options, channels) or {"subtrahend", "divisor"} & set(options) or not isinstance(nonzero, bool):
        return None
    return {"class_path": "riskft.ZScoreIntensity", "init_args": {"masked": nonzero}}


def _clipped(options: Config, _: int | None) -> dict[str, Any] | None:
    limits = [options.get(key) for key in ("a_min", "a_max", "b_min", "b_max")]
    if options.get("clip") is not True or not all(isinstance(limit, (int, float)) for limit in limits):
        return None
    low, high, bottom, top = (float(limit) for limit in limits if limit is not None)
    if not (low < high and bottom < top):
        return None
    std = (high - low) / (top - bottom)
    return {
        "class_path": "riskft.ClipIntensity",
        "init_args": {"low": low, "high": high, "mean": low - bottom * std, "std": std},
    }


def _between_percentiles(options: Config, channels: int | None) -> dict[str, Any] | None:
    low, high = options.get("lower"), options.get("upper")
    fits = (options.get("b_min"), options.get("b_max"), options.get("clip")) == (0, 1, True)
    if not fits or options.get("relative", False) is not False or not _by_channel(options, channels):
        return None
    if not isinstance(low, (int, float)) or not isinstance(high, (int, float)):
        return None
    return {"class_path": "riskft.PercentileIntensity", "init_args": {"low": float(low), "high": float(high)}}


def _between_extremes(options: Config, channels: int | None) -> dict[str, Any] | None:
    fits = (options.get("minv", 0), options.get("maxv", 1)) == (0, 1) and "factor" not in options
    return (
        {"class_path": "riskft.MinMaxIntensity", "init_args": {}} if fits and _by_channel(options, channels) else None
    )
