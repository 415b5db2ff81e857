"""Every shipped config parses, in the combinations that it is made for; wrong input fails with its config path."""

from pathlib import Path

import pytest

from riskft.cli import RiskCLI, main, run

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
DATA = ["bids", "brats15_2mm", "fets2021", "hippocampus", "iseg2019", "manifest", "msd", "nnunet", "open_ms"]
METHODS = [
    "ce",
    "ce_foreground",
    "class_prior",
    "class_prior_dice",
    "distilled",
    "focal",
    "l2sp",
    "paper",
    "prior_relative",
    "random_head",
    "refreshed",
    "risk_dice",
    "risk_in_class",
    "risk_sampling",
    "riskft",
    "riskft_hrd",
    "scratch",
    "topk",
    "vanilla",
]


# each once with a full partner: data and method configs share no option
PAIRS = sorted({*((data, "riskft") for data in DATA), *((DATA[0], method) for method in METHODS)})


class ParseOnly(RiskCLI):
    def before_instantiate_classes(self):
        pass

    def instantiate_classes(self):
        pass

    def _run_subcommand(self, subcommand):
        pass


def parse(*files, more=()):
    options = [part for file in files for part in ("--config", str(CONFIGS / f"{file}.yaml"))]
    return run(["fit", *options, *more], ParseOnly).config.fit


@pytest.mark.parametrize(("data", "method"), PAIRS)
def test_data_and_method_configs_parse_together(data, method):
    config = parse("model/unet", f"data/{data}", f"method/{method}", "trainer/cpu")
    assert config.run.method == method
    assert config.run.study == data
    assert config.data.reader.class_path.endswith("Reader")
    assert config.trainer.use_distributed_sampler is False


@pytest.mark.parametrize("trainer", ["cpu", "gpu"])
@pytest.mark.parametrize("extra", ["trainer/ema", "trainer/freeze", "model/sgd_poly", "data/augment"])
def test_extra_configs_parse_on_top(trainer, extra):
    config = parse("model/unet", "data/fets2021", "method/riskft", f"trainer/{trainer}", extra)
    names = [callback.class_path.rpartition(".")[2] for callback in config.trainer.callbacks]
    added = {"trainer/ema": ["AveragedWeights"], "trainer/freeze": ["BackboneFreeze"]}.get(extra, [])
    assert names == ["RiskMapCallback", "RiskPanelCallback", *added]


@pytest.mark.parametrize("method", [*METHODS, "source"])
def test_demo_configs_parse(method):
    files = ["demo/source", "method/scratch"] if method == "source" else [f"method/{method}"]
    config = parse("demo/base", *files)
    assert config.run.study == "demo"


def test_without_a_network_the_source_s_own_description_is_awaited():
    config = parse("model/from_checkpoint", "data/hippocampus", "method/riskft", "trainer/cpu")
    assert config.model.source.network is None
    assert config.model.inferer.init_args.roi_size == config.data.patch_size


def test_every_shipped_config_is_covered():
    covered = {
        *(f"data/{name}" for name in [*DATA, "augment"]),
        *(f"method/{name}" for name in METHODS),
        *(f"trainer/{name}" for name in ("cpu", "gpu", "ema", "freeze")),
        *("model/unet", "model/from_checkpoint", "model/sgd_poly", "demo/base", "demo/source"),
    }
    # sweeps and what they ask of a cluster are no configs of one run; tests/sweep has them
    shipped = [path.relative_to(CONFIGS) for path in CONFIGS.rglob("*.yaml")]
    assert {str(path.with_suffix("")) for path in shipped if path.parts[0] not in ("sweeps", "slurm")} == covered


def test_the_inferer_s_window_follows_the_patch_size_after_overrides():
    config = parse("model/unet", "data/fets2021", more=["--data.patch_size", "[32,48,64]"])
    assert list(config.model.inferer.init_args.roi_size) == [32, 48, 64]


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("--data.patch_sise", "[1,1,1]", "patch_sise"),
        ("--data.batch_size", "two", "data.batch_size"),
        ("--model.head_init", "lepp", "model.head_init"),
        ("--model.optimizer.init_args.learning", "1", "learning"),
    ],
)
def test_unknown_keys_and_wrong_types_fail_with_the_config_path(option, value, named, capsys):
    files = ["model/unet", "data/fets2021", "method/riskft"]
    arguments = [part for file in files for part in ("--config", str(CONFIGS / f"{file}.yaml"))]
    with pytest.raises(SystemExit) as stopped:
        main(["fit", *arguments, option, value])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert named in error
    assert len(error.splitlines()) < 15


def test_bad_values_fail_at_the_border(capsys):
    files = ["model/unet", "data/fets2021", "method/riskft"]
    arguments = [part for file in files for part in ("--config", str(CONFIGS / f"{file}.yaml"))]
    with pytest.raises(SystemExit) as stopped:
        main(["fit", *arguments, "--data.preprocessing.spacing", "[0,1,1]"])
    assert stopped.value.code in (1, 2)
    assert "spacing" in capsys.readouterr().err


def test_a_missing_data_folder_is_named(capsys, tmp_path):
    files = ["model/unet", "data/fets2021", "method/scratch"]
    arguments = [part for file in files for part in ("--config", str(CONFIGS / f"{file}.yaml"))]
    with pytest.raises(SystemExit) as stopped:
        main(
            ["fit", *arguments, "--run.root", str(tmp_path), "--data.reader.init_args.root", str(tmp_path / "nowhere")]
        )
    assert stopped.value.code == 1
    assert "nowhere" in capsys.readouterr().err


def test_a_missing_source_is_named_before_the_data_are_looked_at(capsys, tmp_path):
    files = ["model/unet", "data/fets2021", "method/vanilla"]
    arguments = [part for file in files for part in ("--config", str(CONFIGS / f"{file}.yaml"))]
    for more, expected in (([], "model.source.checkpoint is not set"), (["nowhere.pt"], "there is no such checkpoint")):
        given = [part for path in more for part in ("--model.source.checkpoint", str(tmp_path / path))]
        with pytest.raises(SystemExit) as stopped:
            main(["fit", *arguments, "--run.root", str(tmp_path), *given])
        assert stopped.value.code == 1
        assert expected in capsys.readouterr().err
