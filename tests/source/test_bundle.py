"""MONAI bundle folders, made with MONAI itself."""

import json
import os

import pytest
import torch
from jsonargparse import ArgumentParser
from monai.bundle import ConfigParser
from monai.networks import nets
from payload import assert_real, write_bomb
from torch import nn

from riskft.data.prepare.preprocess import Preprocessing
from riskft.errors import InputError
from riskft.source.checkpoint import read_checkpoint
from riskft.source.checkpoint_file import UntrustedError
from riskft.source.load import load_source
from riskft.source.output import SigmoidOutput, SoftmaxOutput, SourceOutput
from riskft.source.packages import bundle, find_package
from riskft.source.source import Source

SIZE = (16, 24, 32)
UNET = {
    "_target_": "UNet", "spatial_dims": 3, "in_channels": "@channels", "out_channels": 3,
    "channels": [4, 8, 8], "strides": "%settings::strides", "num_res_units": 2, "norm": "batch",
}  # fmt: skip
NETWORKS = {
    "UNet": UNET,
    "DynUNet": {
        "_target_": "monai.networks.nets.DynUNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 3,
        "kernel_size": [3, [1, 3, 3], 3], "strides": [1, 2, 2], "upsample_kernel_size": [2, 2], "filters": [4, 8, 8],
        "norm_name": ["INSTANCE", {"affine": True}],
    },
    "SegResNet": {
        "_target_": "SegResNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 3, "init_filters": 8,
        "blocks_down": [1, 1], "blocks_up": [1], "norm": ["GROUP", {"num_groups": 4}], "dropout_prob": 0.2,
    },
    "AttentionUnet": {
        "_target_": "monai.networks.nets.AttentionUnet", "spatial_dims": 3, "in_channels": 1, "out_channels": 3,
        "channels": [4, 8], "strides": [2],
    },
}  # fmt: skip
TRANSFORMS = [
    {"_target_": "LoadImaged", "keys": ["image", "label"]},
    {"_target_": "Orientationd", "keys": ["image", "label"], "axcodes": "LAS"},
    {"_target_": "Spacingd", "keys": ["image", "label"], "pixdim": "@settings::spacing", "mode": "bilinear"},
    {"_target_": "NormalizeIntensityd", "keys": "@key", "nonzero": True, "channel_wise": True},
]
METADATA = {
    "version": "0.1.0",
    "network_data_format": {
        "inputs": {"image": {"type": "magnitude", "num_channels": 1, "spatial_shape": [96, 96, 96]}},
        "outputs": {"pred": {"num_channels": 3, "channel_def": {"0": "background", "1": "shell", "2": "core"}}},
    },
}


def config(network=UNET, transforms=TRANSFORMS, **more):
    return {
        "imports": ["$import glob"],
        "bundle_root": ".",
        "channels": 1,
        "key": "image",
        "settings": {"strides": [2, 2], "spacing": [1.5, 1.5, 2]},
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": network,
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": "Compose", "transforms": transforms},
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [96, 96, 64], "sw_batch_size": 4},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [{"_target_": "Activationsd", "keys": "pred", "softmax": True}],
        },
        "handlers": [{"_target_": "CheckpointLoader", "load_path": "$@bundle_root + '/models/model.pt'"}],
        **more,
    }


def write_bundle(folder, content, state=None, *, name="inference.json", metadata=METADATA, weights="model.pt"):
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    ConfigParser.export_config_file(content, str(folder / "configs" / name), fmt=name.rpartition(".")[2], indent=2)
    if metadata is not None:
        (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    if weights is not None:
        torch.save({} if state is None else state, folder / "models" / weights)
    return folder


def built(described):
    """Builds what a class_path and init_args describe, as the command line does."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--network", type=nn.Module)
    parser.add_argument("--output", type=SourceOutput)
    parser.add_class_arguments(Preprocessing, "preprocessing")
    return parser.instantiate_classes(parser.parse_object(described))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("file", ["inference.json", "train.yaml"])
@torch.no_grad()
def test_the_network_is_the_one_that_monai_builds(tmp_path, name, file):
    content = config(NETWORKS[name])
    torch.manual_seed(1)
    reference = ConfigParser(content).get_parsed_content("network_def")
    for module in reference.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
    folder = write_bundle(tmp_path / "bundle", content, reference.state_dict(), name=file)
    package = find_package(folder)
    torch.manual_seed(2)
    network = built({"network": package.config["model"]["source"]["network"]}).network
    loaded = load_source(Source(network, str(folder)), 1, SIZE)
    assert type(loaded.network) is type(reference)
    assert (loaded.missing, loaded.unused, loaded.class_names) == ((), (), ("background", "shell", "core"))
    image = torch.randn(2, 1, *SIZE)
    torch.testing.assert_close(loaded.network(image), reference.eval()(image), atol=1e-6, rtol=0)


def test_defaults(tmp_path):
    package = find_package(write_bundle(tmp_path / "bundle", config()))
    assert package.weights == tmp_path / "bundle/models/model.pt"
    assert (package.class_names, package.in_channels, package.kernel_axes) == (("background", "shell", "core"), 1, None)
    assert package.config["data"] == {
        "patch_size": [96, 96, 64],
        "preprocessing": {
            "spacing": [1.5, 1.5, 2.0],
            "orientation": "LAS",
            "intensity": {"class_path": "riskft.ZScoreIntensity", "init_args": {"masked": True}},
        },
    }
    made = built(
        {
            "preprocessing": package.config["data"]["preprocessing"],
            "output": package.config["model"]["source"]["output"],
        }
    )
    assert made.output == SoftmaxOutput()
    assert made.preprocessing.spacing == (1.5, 1.5, 2.0)


def intensity(*transforms, channels=1):
    network = {**UNET, "in_channels": channels}
    return lambda folder: (
        find_package(write_bundle(folder, config(network, list(transforms)))).config["data"].get("preprocessing", {})
    )


RANGE = {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": -200, "a_max": 300, "b_min": -1, "b_max": 1}
PERCENTILES = {
    "_target_": "monai.transforms.ScaleIntensityRangePercentilesd", "keys": "image",
    "lower": 1, "upper": 99, "b_min": 0, "b_max": 1, "clip": True,
}  # fmt: skip
ZSCORE = {"_target_": "NormalizeIntensityd", "keys": "image"}


@pytest.mark.parametrize(
    ("make", "expected", "init_args"),
    [
        # (x + 200) / 500 * 2 - 1 = (x - 50) / 250
        (
            intensity({**RANGE, "clip": True}),
            "riskft.ClipIntensity",
            {"low": -200, "high": 300, "mean": 50, "std": 250},
        ),
        (intensity(RANGE), None, None),
        (intensity({**RANGE, "clip": True, "a_min": "$-200"}), None, None),
        (intensity(PERCENTILES), "riskft.PercentileIntensity", {"low": 1, "high": 99}),
        (intensity(PERCENTILES, channels=2), None, None),
        (
            intensity({**PERCENTILES, "channel_wise": True}, channels=2),
            "riskft.PercentileIntensity",
            {"low": 1, "high": 99},
        ),
        (intensity({**PERCENTILES, "relative": True}), None, None),
        (intensity({**PERCENTILES, "b_max": 2}), None, None),
        (intensity(ZSCORE), "riskft.ZScoreIntensity", {"masked": False}),
        (intensity(ZSCORE, channels=2), None, None),
        (intensity({**ZSCORE, "subtrahend": 3}), None, None),
        (intensity({**ZSCORE, "_disabled_": "$True"}), None, None),
        (intensity({"_target_": "ScaleIntensityd", "keys": "image"}), "riskft.MinMaxIntensity", {}),
        (intensity({"_target_": "ScaleIntensityd", "keys": "image", "factor": 2}), None, None),
        (intensity({**RANGE, "clip": True}, ZSCORE), None, None),
        (intensity({"_target_": "HistogramNormalized", "keys": "image"}, ZSCORE), None, None),
        (
            intensity(ZSCORE, {"_target_": "ScaleIntensityd", "keys": "label"}),
            "riskft.ZScoreIntensity",
            {"masked": False},
        ),
    ],
)
def test_intensities(tmp_path, make, expected, init_args):
    found = make(tmp_path / "bundle")
    if expected is None:
        assert "intensity" not in found
        return
    assert found["intensity"] == {"class_path": expected, "init_args": init_args}
    built({"preprocessing": found})
    # without a crop in the bundle, riskft's must not change the voxels that the statistics are taken over
    assert found.get("crop") is (None if expected == "riskft.ClipIntensity" else False)


def test_a_crop_to_the_foreground_is_kept(tmp_path):
    crop = {"_target_": "CropForegroundd", "keys": ["image"], "source_key": "image"}
    assert intensity(crop, PERCENTILES)(tmp_path / "bundle")["crop"] is True


def test_a_sigmoid_head(tmp_path):
    activation = {"_target_": "Activationsd", "keys": "pred", "sigmoid": True}
    package = find_package(
        write_bundle(tmp_path / "b", config(postprocessing={"_target_": "Compose", "transforms": [activation]}))
    )
    assert built({"output": package.config["model"]["source"]["output"]}).output == SigmoidOutput()


@pytest.mark.parametrize(
    ("metadata", "names"),
    [
        (None, None),
        ({}, None),
        (
            {"network_data_format": {"outputs": {"pred": {"channel_def": {"0": "a", "1": "b"}}}}},
            None,
        ),  # the network has 3
        ({"network_data_format": {"outputs": {"pred": {"channel_def": {"0": "a", "1": "b", "5": "c"}}}}}, None),
        (
            {"network_data_format": {"outputs": {"out": {"channel_def": {"2": "c", "0": "a", "1": "b"}}}}},
            ("a", "b", "c"),
        ),
        ({"network_data_format": ["odd"]}, None),
    ],
)
def test_class_names(tmp_path, metadata, names):
    package = find_package(write_bundle(tmp_path / "bundle", config(), metadata=metadata))
    assert (package.class_names, package.in_channels) == (names, 1)


def test_what_is_no_bundle(tmp_path):
    assert bundle.find(tmp_path) is None
    assert bundle.find(tmp_path / "absent") is None
    folder = write_bundle(tmp_path / "bundle", config())
    assert bundle.find(folder / "models/model.pt") is None  # so that a network can be given by class_path
    (folder / "configs/inference.json").rename(folder / "configs/other.json")
    assert bundle.find(folder) is None


def test_weights(tmp_path):
    folder = write_bundle(tmp_path / "bundle", config(), weights=None)
    (folder / "models/model.ts").write_text("")
    with pytest.raises(
        InputError, match=r"models: found model\.ts, expected the bundle's weights as one of model\.safe"
    ):
        find_package(folder)
    for name in ("model.pt", "model.safetensors"):
        (folder / "models" / name).write_text("")
        assert find_package(folder).weights.name == name


@pytest.mark.parametrize("name", ["train.json", "train.yml"])
def test_the_training_config_describes_what_the_other_does_not(tmp_path, name):
    folder = write_bundle(tmp_path / "bundle", config("$monai.networks.nets.UNet(3, 1, 2)"))
    ConfigParser.export_config_file(config(), str(folder / "configs" / name), fmt=name.rpartition(".")[2])
    assert find_package(folder).config["model"]["source"]["network"]["init_args"]["strides"] == [2, 2]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (config({**UNET, "channels": "$[4, 8, 8]"}), r"'network_def::channels' is the expression '\$\[4, 8, 8\]'"),
        (config({**UNET, "in_channels": "@chosen"}, chosen="$1"), r"'chosen' is the expression '\$1'"),
        (config({**UNET, "strides": ["$2", 2]}), r"'network_def::strides::0' is the expression"),
        (config("$monai.networks.nets.UNet(3, 1, 2)"), "'network_def' is the expression"),
        (config({**UNET, "in_channels": "@absent"}), "'network_def::in_channels' refers to 'absent', which"),
        (config({**UNET, "in_channels": "%other.json::channels"}), r"refers to 'other\.json::channels', which"),
        (config({**UNET, "in_channels": "@a"}, a="@b", b="%a"), "refers to itself"),
        (config({**UNET, "act": {"_target_": "torch.nn.ReLU"}}), "has objects among its options"),
        (config({**UNET, "_mode_": "callable"}), "not built in the default mode"),
        (config({**UNET, "_target_": "$UNet"}), "'network_def::_target_' is the expression"),
        (config({"spatial_dims": 3}), "has no '_target_'"),
        (config({**UNET, "_target_": "NoSuchNet"}), r"is 'NoSuchNet', expected a subclass of torch\.nn\.Module"),
        (config({**UNET, "_target_": "absent_package.Net"}), r"is 'absent_package\.Net', which is not installed"),
    ],
)
def test_what_is_not_plain_is_named(tmp_path, content, said):
    folder = write_bundle(tmp_path / "bundle", content)
    with pytest.raises(InputError, match=said) as caught:
        find_package(folder)
    lines = str(caught.value).splitlines()
    assert len(lines) <= 3
    assert f"Give model.source.network by class_path, and {folder}/models/model.pt as" in lines[0]


@pytest.mark.parametrize(
    "target",
    ["os.system", "builtins.eval", "subprocess.Popen", "torch.load", "monai.bundle.run", "torch.nn.functional"],
)
def test_only_networks_are_taken_and_nothing_is_called(tmp_path, monkeypatch, target):
    called = []
    monkeypatch.setattr(os, "system", lambda *arguments: called.append(arguments))
    content = config({"_target_": target, "command": f"touch {tmp_path}/marker"})
    with pytest.raises(InputError, match=rf"is '{target}', expected a subclass of torch\.nn\.Module"):
        find_package(write_bundle(tmp_path / "bundle", content))
    assert not called
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(("start", "target"), [("bundle", "scripts.net.Net"), (".", "bundle.scripts.net.Net")])
def test_the_bundle_s_own_python_is_not_imported(tmp_path, monkeypatch, start, target):
    folder = write_bundle(tmp_path / "bundle", config({"_target_": target}))
    (folder / "scripts").mkdir()
    (folder / "scripts/net.py").write_text(
        f"open({str(tmp_path / 'marker')!r}, 'w')\nfrom torch.nn import Conv3d as Net\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / start))
    with pytest.raises(InputError, match="of the bundle's own Python files, which riskft does not run"):
        find_package(folder)
    assert not (tmp_path / "marker").exists()


def test_expressions_elsewhere_are_never_evaluated(tmp_path):
    evil = f"$open({str(tmp_path / 'marker')!r}, 'w')"
    content = config(
        imports=[evil],
        initialize=[evil],
        inferer={"_target_": "SlidingWindowInferer", "roi_size": evil},
        post={"_target_": "Activationsd", "keys": evil, "sigmoid": evil},
        transforms=[{"_target_": "Spacingd", "keys": evil, "pixdim": evil}],
    )
    package = find_package(write_bundle(tmp_path / "bundle", {**content, "network_def": {**UNET, "_requires_": evil}}))
    assert "data" not in package.config
    assert not (tmp_path / "marker").exists()


def test_a_yaml_that_makes_objects_is_refused(tmp_path):
    folder = write_bundle(tmp_path / "bundle", config(), name="inference.yaml")
    path = folder / "configs/inference.yaml"
    path.write_text(path.read_text() + f"\nevil: !!python/object/apply:os.system ['touch {tmp_path}/marker']\n")
    with pytest.raises(InputError, match=r"inference\.yaml: cannot be read as the config of a MONAI bundle"):
        find_package(folder)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"network_def": 3}', "[" * 100_000])
def test_broken_configs(tmp_path, text):
    folder = write_bundle(tmp_path / "bundle", config())
    (folder / "configs/inference.json").write_text(text)
    with pytest.raises(InputError, match="bundle"):
        find_package(folder)


def test_a_network_of_other_dimensions(tmp_path):
    with pytest.raises(InputError, match="its network is 2-D, expected a 3-D one"):
        find_package(write_bundle(tmp_path / "bundle", config({**UNET, "spatial_dims": 2})))


def test_a_payload_in_the_weights_does_not_run(tmp_path):
    folder, marker = write_bundle(tmp_path / "bundle", config()), tmp_path / "marker"
    path = write_bomb(folder / "models/model.pt", marker, nets.UNet(3, 1, 3, (4, 8), (2,)).state_dict())
    with pytest.raises(UntrustedError, match=r"models/model\.pt: holds Python objects"):
        read_checkpoint(folder)
    assert_real(path, marker)
