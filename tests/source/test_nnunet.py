"""nnU-Net's trained-model folders."""

import itertools
import json
import re
import sys
from pathlib import Path

import pytest
import torch
from nnunet_folder import (
    ARCH,
    PROPERTIES,
    arch_kwargs,
    dataset,
    original,
    plans,
    write_checkpoint,
    write_folder,
)
from torch import nn

from riskft import nnunet_network
from riskft.errors import InputError
from riskft.source.checkpoint import read_checkpoint
from riskft.source.classes import with_classes
from riskft.source.input_channels import with_input_channels
from riskft.source.load import fill
from riskft.source.packages import find_package, nnunet
from riskft.source.packages.nnunet.plans import along_xyz, kernel_axes
from riskft.source.reading import outputs_of
from riskft.source.trace import trace

UNET = "dynamic_network_architectures.architectures.unet.PlainConvUNet"


def built(package):
    return nnunet_network(**package.config["model"]["source"]["network"]["init_args"])


def fullres(content):
    return content["configurations"]["3d_fullres"]


def preprocessing(package):
    return package.config["data"]["preprocessing"]


# -- the axes ------------------------------------------------------------------------------------------------------


def test_kernel_axes_by_hand():
    # nnU-Net's axes after [2, 0, 1] are the scan's x, z, y: so x is its axis 0, y its axis 2, z its axis 1
    assert kernel_axes({"transpose_forward": [2, 0, 1]}) == (0, 2, 1)
    assert kernel_axes({"transpose_forward": [0, 1, 2]}) == (2, 1, 0)
    assert kernel_axes({"transpose_forward": [1, 0, 2]}) == (2, 0, 1)


@pytest.mark.parametrize("forward", list(itertools.permutations(range(3))))
def test_kernel_axes_undo_what_nnunet_does_to_an_array(forward):
    scan = torch.arange(2 * 3 * 4).reshape(2, 3, 4)  # x, y, z
    seen = scan.permute(2, 1, 0).permute(forward)
    axes = kernel_axes({"transpose_forward": list(forward)})
    assert torch.equal(seen.permute(axes), scan)
    assert along_xyz(seen.shape, axes) == [2, 3, 4]


@pytest.mark.parametrize("class_name", ["PlainConvUNet", "ResidualEncoderUNet", "ResidualUNet"])
@pytest.mark.parametrize("forward", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_logits_are_those_of_nnunet_on_its_own_axes(tmp_path, class_name, forward):
    network = original(class_name)
    folder = write_folder(tmp_path, plans(class_name, forward), network=network)
    package = find_package(folder)
    mine = built(package)
    size = package.config["data"]["patch_size"]
    left = fill(mine, read_checkpoint(folder), size)
    assert left == ((), ())
    mine.eval()
    scan = torch.randn(1, 2, *size, generator=torch.Generator().manual_seed(1))
    seen = scan.permute(0, 1, 4, 3, 2).permute(0, 1, *(2 + axis for axis in forward))
    assert list(seen.shape[2:]) == [4, 12, 16]  # the plans' patch
    with torch.no_grad():
        expected = network(seen).permute(0, 1, *(2 + axis for axis in package.kernel_axes))
        outputs = outputs_of(mine(scan))
    assert [output.shape[1] for output in outputs] == [3, 3]
    assert expected.std() > 0.1
    torch.testing.assert_close(outputs[0], expected, atol=1e-4, rtol=0)


def test_deep_supervision_gives_the_same_outputs_finest_first(tmp_path):
    network = original(deep_supervision=True)
    folder = write_folder(tmp_path, plans(), network=network)
    package = find_package(folder)
    mine = built(package)
    fill(mine, read_checkpoint(folder), package.config["data"]["patch_size"])
    scan = torch.randn(1, 2, *package.config["data"]["patch_size"])
    with torch.no_grad():
        for found, expected in zip(mine.eval()(scan), network(scan.permute(0, 1, 4, 3, 2)), strict=True):
            torch.testing.assert_close(found, expected.permute(0, 1, 4, 3, 2), atol=1e-4, rtol=0)


def test_everything_by_axis_is_along_xyz(tmp_path):
    package = find_package(write_folder(tmp_path, plans(forward=(2, 0, 1))))
    options = package.config["model"]["source"]["network"]["init_args"]
    assert package.kernel_axes == (0, 2, 1)
    assert options["arch_kwargs"]["kernel_sizes"] == [[1, 5, 3], [3, 5, 3], [3, 3, 1]]
    assert options["arch_kwargs"]["strides"] == [[1, 1, 1], [1, 4, 2], [2, 1, 2]]
    assert package.config["data"]["patch_size"] == [4, 16, 12]
    assert preprocessing(package)["spacing"] == [3.0, 0.5, 1.5]
    assert (options["in_channels"], options["num_classes"], package.in_channels) == (2, 3, 2)


@pytest.mark.parametrize(
    ("reader", "orientation"),
    [
        ("SimpleITKIO", None),
        ("NibabelIO", None),
        ("NibabelIOWithReorient", "RAS"),
        ("SimpleITKIOWithReorient", "RAS"),
    ],
)
def test_orientation_is_the_reader_s(tmp_path, reader, orientation):
    package = find_package(write_folder(tmp_path, {**plans(), "image_reader_writer": reader}))
    assert preprocessing(package)["orientation"] == orientation


# -- which model ---------------------------------------------------------------------------------------------------


def test_a_folder_a_fold_and_a_file_are_the_same_model(tmp_path):
    folder = write_folder(tmp_path, plans(), folds=("fold_1", "fold_10", "fold_all"))
    file = folder / "fold_1/checkpoint_final.pth"
    packages = [find_package(path) for path in (folder, folder / "fold_1", file)]
    assert packages[0] == packages[1] == packages[2]
    assert packages[0].weights == file
    assert find_package(folder / "fold_all").weights == folder / "fold_all/checkpoint_final.pth"


def test_fold_all_only_where_there_is_no_other(tmp_path, caplog):
    folder = write_folder(tmp_path, plans(), folds=("fold_all",))
    with caplog.at_level("INFO", logger="riskft"):
        assert find_package(folder).weights.parent.name == "fold_all"
    assert "taking fold_all/checkpoint_final.pth" in caplog.text


def test_relative_paths(tmp_path, monkeypatch):
    folder = write_folder(tmp_path, plans()).rename(tmp_path / "nnUNetTrainer__nnUNetPlans__3d_lowres")
    for inside, path in ((folder, "."), (folder, "fold_0"), (folder / "fold_0", "."), (folder / "fold_0", "..")):
        monkeypatch.chdir(inside)
        assert find_package(Path(path)) == find_package(folder)


def test_the_best_checkpoint_where_there_is_no_final_one(tmp_path):
    folder = write_folder(tmp_path, plans())
    (folder / "fold_0/checkpoint_final.pth").rename(folder / "fold_0/checkpoint_best.pth")
    (folder / "fold_0/checkpoint_latest.pth").touch()
    assert find_package(folder).weights.name == "checkpoint_best.pth"
    assert find_package(folder / "fold_0/checkpoint_latest.pth").weights.name == "checkpoint_latest.pth"


def test_the_configuration_is_in_the_folder_s_name_and_may_inherit(tmp_path):
    folder = write_folder(tmp_path, plans())
    lowres = folder.rename(tmp_path / "nnUNetTrainer__nnUNetPlans__3d_lowres")
    package = find_package(lowres)
    assert preprocessing(package)["spacing"] == [1.0, 3.0, 6.0]
    assert package.config["data"]["patch_size"] == [16, 12, 4]


def test_a_renamed_folder(tmp_path):
    content = plans()
    folder = write_folder(tmp_path, content).rename(tmp_path / "model")
    with pytest.raises(InputError, match="does not say which one was trained"):
        find_package(folder)
    (folder / "fold_0/debug.json").write_text(json.dumps({"configuration_name": "3d_lowres"}))
    assert preprocessing(find_package(folder))["spacing"] == [1.0, 3.0, 6.0]
    (folder / "fold_0/debug.json").unlink()
    del content["configurations"]["3d_lowres"]
    (folder / "plans.json").write_text(json.dumps(content))
    assert preprocessing(find_package(folder))["spacing"] == [0.5, 1.5, 3.0]


@pytest.mark.parametrize(
    ("name", "problem"), [("2d", "two-dimensional"), ("3d_cascade_fullres", "needs the segmentation of '3d_lowres'")]
)
def test_what_riskft_cannot_use_is_refused(tmp_path, name, problem):
    folder = write_folder(tmp_path, plans()).rename(tmp_path / f"nnUNetTrainer__nnUNetPlans__{name}")
    with pytest.raises(InputError, match=problem) as caught:
        find_package(folder)
    assert caught.value.title.startswith(str(folder / "plans.json"))


@pytest.mark.parametrize("missing", ["plans.json", "dataset.json"])
def test_a_missing_part_is_named(tmp_path, missing):
    folder = write_folder(tmp_path, plans())
    (folder / missing).unlink()
    for path in (folder, folder / "fold_0", folder / "fold_0/checkpoint_final.pth"):
        with pytest.raises(InputError, match=rf"{re.escape(str(folder))}: {re.escape(missing)} missing"):
            find_package(path)


def test_no_checkpoint(tmp_path):
    folder = write_folder(tmp_path, plans())
    (folder / "fold_0/checkpoint_final.pth").unlink()
    for path in (folder, folder / "fold_0"):
        with pytest.raises(InputError, match=r"no trained fold: expected checkpoint_final\.pth"):
            find_package(path)


def test_a_folder_of_models_lists_them(tmp_path):
    write_folder(tmp_path, plans())
    with pytest.raises(InputError, match="holds 1 trained models") as caught:
        nnunet.find(tmp_path)
    assert caught.value.problems == ("nnUNetTrainer__nnUNetPlans__3d_fullres",)


def test_other_things_are_none_of_its_business(tmp_path):
    (tmp_path / "imagesTr").mkdir()
    (tmp_path / "dataset.json").write_text("{}")
    plain = write_checkpoint(tmp_path / "fold_0/somewhere.pth", original())
    (tmp_path / "dataset.json").unlink()
    assert nnunet.find(plain) is None
    assert nnunet.find(tmp_path / "imagesTr") is None
    assert nnunet.find(tmp_path / "nothing") is None
    assert nnunet.find(tmp_path) is None
    assert nnunet.find(tmp_path / "fold_0") is None


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("plans.json", lambda content: content.pop("transpose_forward"), "'transpose_forward' is missing"),
        ("plans.json", lambda content: content.update(transpose_forward=[0, 0, 1]), "expected a permutation"),
        ("plans.json", lambda content: content.update(image_reader_writer="TiffIO"), "image_reader_writer is 'TiffIO'"),
        ("plans.json", lambda content: content.update(configurations=3), "has another form than nnU-Net v2 writes"),
        ("plans.json", lambda content: fullres(content).update(inherits_from="3d_lowres"), "itself"),
        (
            "plans.json",
            lambda content: fullres(content)["architecture"].update(network_class_name="a.Primus"),
            "The network is a.Primus",
        ),
        (
            "plans.json",
            lambda content: fullres(content).update(
                normalization_schemes=["RGBTo01Normalization", "ZScoreNormalization"]
            ),
            "The normalisation is RGBTo01Normalization",
        ),
        ("dataset.json", lambda content: content.pop("labels"), "'labels' is missing"),
        ("dataset.json", lambda content: content["labels"].pop("background"), "no 'background'"),
        ("dataset.json", lambda content: content.pop("channel_names"), "'channel_names' is missing"),
    ],
)  # fmt: skip
def test_broken_descriptions_name_the_file(tmp_path, file, change, message):
    content = {"plans.json": plans(), "dataset.json": dataset()}
    change(content[file])
    folder = write_folder(tmp_path, content["plans.json"], content["dataset.json"])
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        find_package(folder)
    assert caught.value.title.startswith(f"{folder / file}: ")


@pytest.mark.parametrize("text", ["{", "[1]", "\x00"])
def test_what_is_not_json(tmp_path, text):
    folder = write_folder(tmp_path, plans())
    (folder / "plans.json").write_text(text)
    with pytest.raises(InputError, match=r"plans\.json: (cannot be read as JSON|holds a list)"):
        find_package(folder)


# -- old plans -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("class_name", ["PlainConvUNet", "ResidualEncoderUNet"])
def test_plans_before_2_4_describe_the_same_network(tmp_path, class_name):
    content = plans(class_name)
    del fullres(content)["architecture"]
    content["configurations"]["3d_fullres"] |= {
        "UNet_class_name": class_name,
        "UNet_base_num_features": 4,
        "unet_max_num_features": 6,
        "n_conv_per_stage_encoder": ARCH["n_conv_per_stage"],
        "n_conv_per_stage_decoder": ARCH["n_conv_per_stage_decoder"],
        "num_pool_per_axis": [1, 2, 2],
        "pool_op_kernel_sizes": ARCH["strides"],
        "conv_kernel_sizes": ARCH["kernel_sizes"],
    }
    content["foreground_intensity_properties_by_modality"] = content.pop("foreground_intensity_properties_per_channel")
    options = find_package(write_folder(tmp_path, content)).config["model"]["source"]["network"]["init_args"]
    assert options["network_class_name"] == f"dynamic_network_architectures.architectures.unet.{class_name}"
    expected = arch_kwargs(class_name) | {
        "features_per_stage": [4, 6, 6],
        "conv_op": "torch.nn.Conv3d",
        "norm_op": "torch.nn.InstanceNorm3d",
        "kernel_sizes": [size[::-1] for size in ARCH["kernel_sizes"]],
        "strides": [size[::-1] for size in ARCH["strides"]],
    }
    assert options["arch_kwargs"] == expected
    assert isinstance(nnunet_network(**options), nn.Module)


# -- labels and grey values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "names", "output"),
    [
        ({"core": 2, "background": 0, "shell": 1, "ignore": 3}, ("background", "shell", "core"), "Softmax"),
        ({"background": 0, "whole": [1, 2, 3], "core": [2, 3], "rim": 3}, ("whole", "core", "rim"), "Sigmoid"),
        ({"background": 0, "tumour": [1]}, ("background", "tumour"), "Softmax"),
        ({"whole": [2, 1], "background": 0, "core": [2], "ignore": 3}, ("whole", "core"), "Sigmoid"),
    ],
)  # fmt: skip
def test_output_channels(tmp_path, labels, names, output):
    package = find_package(write_folder(tmp_path, plans(), dataset(labels)))
    assert package.class_names == names
    assert package.config["model"]["source"]["output"] == {"class_path": f"riskft.{output}Output"}
    assert package.config["model"]["source"]["network"]["init_args"]["num_classes"] == len(names)


def scheme(name, **options):
    return {"class_path": f"riskft.{name}", **({"init_args": options} if options else {})}


CT = scheme("ClipIntensity", low=-20.0, high=300.0, mean=120.0, std=40.0)


@pytest.mark.parametrize(
    ("schemes", "masked", "expected"),
    [
        (["ZScoreNormalization"] * 2, [True, True], scheme("ZScoreIntensity", masked=True)),
        (["ZScoreNormalization"] * 2, [False, False], scheme("ZScoreIntensity", masked=False)),
        (
            ["ZScoreNormalization"] * 2,
            [True, False],
            scheme(
                "PerChannelIntensity",
                channels=[scheme("ZScoreIntensity", masked=True), scheme("ZScoreIntensity", masked=False)],
            ),
        ),
        (
            ["CTNormalization", "CTNormalization"],
            [False, False],
            scheme(
                "PerChannelIntensity", channels=[CT, scheme("ClipIntensity", low=-20.0, high=300.0, mean=7.0, std=40.0)]
            ),
        ),
        (["RescaleTo01Normalization"] * 2, [False, False], scheme("MinMaxIntensity")),
        (["NoNormalization"] * 2, [False, True], None),
        (
            ["CTNormalization", "NoNormalization"],
            [False, False],
            scheme(
                "PerChannelIntensity",
                channels=[CT, scheme("ClipIntensity", low=-3.4e38, high=3.4e38, mean=0.0, std=1.0)],
            ),
        ),
    ],
)
def test_intensity(tmp_path, schemes, masked, expected):
    content = plans(normalization_schemes=schemes, use_mask_for_norm=masked)
    assert preprocessing(find_package(write_folder(tmp_path, content)))["intensity"] == expected


def test_one_ct_channel(tmp_path):
    content = plans(normalization_schemes=["CTNormalization"], use_mask_for_norm=[False])
    assert preprocessing(find_package(write_folder(tmp_path, content)))["intensity"] == CT
    assert PROPERTIES["mean"] == 120.0


# -- the network ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "torch.nn.Conv3d",
        "dynamic_network_architectures.architectures.unet.nn.Conv3d",
        "dynamic_network_architectures.architectures.unet.PlainConvEncoder",
        "dynamic_network_architectures.architectures.unet.convert_conv_op_to_dim",
        "dynamic_network_architectures.architectures.unet.Nothing",
        "dynamic_network_architectures.building_blocks.unet_decoder.UNetDecoder",
        "dynamic_network_architectures.architectures...os.system",
    ],
)
def test_no_class_but_an_architecture(name):
    with pytest.raises(InputError, match=rf"network_class_name is '{re.escape(name)}'"):
        nnunet_network(name, arch_kwargs("PlainConvUNet"), 1, 2)


def test_the_module_that_the_package_never_had():
    name = "dynamic_network_architectures.architectures.residual_unet.ResidualEncoderUNet"
    assert type(nnunet_network(name, arch_kwargs("ResidualEncoderUNet"), 1, 2)).__name__ == "ResidualEncoderUNet"


@pytest.mark.parametrize("name", ["os.system", "antigravity.Conv3d", "torch.nn.functional.relu", "torch.nn.Nothing"])
def test_no_option_but_a_class_of_torch(name):
    options = {**arch_kwargs("PlainConvUNet"), "conv_op": name}
    with pytest.raises(InputError, match=rf"conv_op is '{re.escape(name)}', expected a class of torch\.nn"):
        nnunet_network(UNET, options, 1, 2)
    assert "antigravity" not in sys.modules


def test_options_that_do_not_fit():
    with pytest.raises(InputError, match="unexpected keyword argument 'colour'"):
        nnunet_network(UNET, {**arch_kwargs("PlainConvUNet"), "colour": 3}, 1, 2)
    with pytest.raises(InputError, match="n_conv_per_stage must have as many entries"):
        nnunet_network(UNET, {**arch_kwargs("PlainConvUNet"), "n_conv_per_stage": [1]}, 1, 2)


def test_the_package_that_is_not_installed(monkeypatch):
    name = "dynamic_network_architectures.architectures.unet"
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r"pip install 'riskft\[nnunet\]'"):
        nnunet_network(UNET, arch_kwargs("PlainConvUNet"), 1, 2)


def test_it_starts_as_nnunet_does():
    network = nnunet_network(UNET, arch_kwargs("PlainConvUNet"), 1, 2)
    assert all((module.bias == 0).all() for module in network.modules() if isinstance(module, nn.Conv3d))


# -- surgery -------------------------------------------------------------------------------------------------------

SIZE = (4, 12, 16)


@pytest.mark.parametrize("class_name", ["PlainConvUNet", "ResidualEncoderUNet"])
@pytest.mark.parametrize("deep_supervision", [True, False])
@pytest.mark.parametrize(("old", "new"), [(2, 5), (4, 4), (4, 5), (6, 5), (8, 2)])  # 4, 6 and 8 are features as well
def test_the_head_is_the_segmentation_layers_alone(class_name, deep_supervision, old, new):
    network = nnunet_network(
        f"dynamic_network_architectures.architectures.unet.{class_name}",
        arch_kwargs(class_name), 2, old, deep_supervision,
    )  # fmt: skip
    changed, names = with_classes(network, new, SIZE)
    heads = [0, 1] if deep_supervision else [1]
    assert sorted(names) == [f"decoder.seg_layers.{index}" for index in heads]
    assert trace(changed, SIZE).channels == [new] * len(heads)
    for index, features in zip(heads, ([6, 4] if deep_supervision else [4]), strict=True):
        assert changed.get_submodule(f"decoder.seg_layers.{index}").weight.shape == (new, features, 1, 1, 1)
    kept = {key: value for key, value in network.state_dict().items() if "seg_layers" not in key}
    assert all(torch.equal(changed.state_dict()[key], value) for key, value in kept.items())


@pytest.mark.parametrize("class_name", ["PlainConvUNet", "ResidualEncoderUNet"])
def test_input_channels_change_under_all_of_their_names(class_name):
    network = nnunet_network(
        f"dynamic_network_architectures.architectures.unet.{class_name}", arch_kwargs(class_name), 2, 3
    )
    changed, names = with_input_channels(network, 1, SIZE)
    assert len(names) == 1
    state = changed.state_dict()
    firsts = [key for key, value in state.items() if value.ndim == 5 and value.shape[1] == 1]
    assert len(firsts) == 4  # in the encoder and in the decoder's copy of it, each time by itself and in a sequence
    assert len({state[key].data_ptr() for key in firsts}) == 1
    image = torch.randn(1, 1, *SIZE)
    with torch.no_grad():
        torch.testing.assert_close(changed(image)[0], network(image.expand(1, 2, *SIZE))[0], atol=1e-5, rtol=1e-4)
