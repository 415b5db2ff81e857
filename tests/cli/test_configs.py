"""Every shipped config parses, in the combinations that it is made for; wrong input fails with its config path."""

import itertools
from pathlib import Path

import pytest
import yaml

from riskft.build import Command
from riskft.cli import main

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
DATA = ["bids", "fets2021", "iseg2019", "manifest", "msd", "nnunet"]
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


def parse(*files, more=()):
    options = [part for file in files for part in ("--config", str(CONFIGS / f"{file}.yaml"))]
    return Command(["fit", *options, *more]).options


@pytest.mark.parametrize(("data", "method"), PAIRS)
def test_data_and_method_configs_parse_together(data, method):
    config = parse("model/unet", f"data/{data}", f"method/{method}", "trainer/cpu")
    assert config.run.method == method
    assert config.run.study == data
    assert config.data.reader.class_path.endswith("Reader")
    assert config.trainer.use_distributed_sampler is False


def names(config):
    return [callback.class_path.rpartition(".")[2] for callback in config.trainer.callbacks or []]


def test_the_result_can_be_printed(capsys):
    with pytest.raises(SystemExit, match="0"):
        parse("model/unet", "data/msd", "method/vanilla", more=["--data.batch_size", "7", "--print_config"])
    assert yaml.safe_load(capsys.readouterr().out)["data"]["batch_size"] == 7


def test_the_order_of_configs_does_not_matter():
    files = [
        "data/fets2021",
        "model/unet",
        "method/vanilla",
        "trainer/cpu",
        "trainer/ema",
        "model/sgd",
        "data/augment",
    ]
    found = []
    for order in (files, files[::-1], [*files[3:], *files[:3]]):
        config = parse(*order).as_dict()
        config.pop("config", None)
        config["trainer"]["callbacks"] = sorted(map(str, config["trainer"]["callbacks"]))
        found.append(config)
    assert "AveragedWeights" in str(found[0]["trainer"]["callbacks"])
    assert found[0]["model"]["optimizer"]["class_path"] == "torch.optim.SGD"
    assert found[1] == found[0]
    assert found[2] == found[0]


def test_configs_of_two_kinds_share_no_option():
    """So none of them can undo another, whichever comes first; lists of callbacks add up."""

    def options(value, above=""):
        if not isinstance(value, dict) or "class_path" in value:
            return {above}
        return set().union(*(options(part, f"{above}.{key}") for key, part in value.items()))

    kinds = {}
    for path in CONFIGS.rglob("*.yaml"):
        if (kind := path.parent.name) in ("data", "method", "model", "trainer"):
            kind = path.stem if path.stem in ("augment", "ema", "freeze", "sgd") else kind
            kinds.setdefault(kind, set()).update(options(yaml.safe_load(path.read_text())))
    for one, other in itertools.combinations(kinds, 2):
        assert kinds[one] & kinds[other] <= {".trainer.callbacks"}, (one, other)


@pytest.mark.parametrize("trainer", ["cpu", "gpu"])
def test_callbacks_of_all_configs_count(trainer, tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text(
        "trainer:\n  callbacks:\n    - class_path: LearningRateMonitor\n      init_args: {logging_interval: step}\n"
        "    - class_path: riskft.RiskMapCallback\n      init_args: {use_mask: true}\n"
    )
    own, files = (
        ["--config", str(own)],
        ["model/unet", "data/fets2021", "method/paper", "trainer/ema", f"trainer/{trainer}"],
    )
    drop = ["--trainer.drop_callbacks", "[riskft.RiskPanelCallback]"]
    config = parse(*files, more=[*own, *drop])
    assert names(config) == ["RiskMapCallback", "AveragedWeights", "LearningRateMonitor"]
    options = config.trainer.callbacks[0].init_args
    assert (options.use_mask, options.mapping.scope) == (True, "volume")
    assert names(parse("trainer/freeze", "data/fets2021", "method/riskft")) == [
        "BackboneFreeze",
        "RiskMapCallback",
        "RiskPanelCallback",
    ]


def test_a_saved_config_has_each_callback_once_when_its_method_is_given_again(tmp_path):
    files = ["model/unet", "data/fets2021", "trainer/ema", "method/l2sp"]
    more = ["--trainer.drop_callbacks", "[riskft.RiskPanelCallback]"]
    arguments = ["fit", *(part for file in files for part in ("--config", str(CONFIGS / f"{file}.yaml"))), *more]
    first = Command(arguments)
    saved = tmp_path / "saved.yaml"
    saved.write_text(first._parser("fit").dump(first.config.fit, skip_unset=False))
    expected = ["AveragedWeights", "RiskMapCallback", "L2SP"]
    assert names(first.config.fit) == expected
    assert names(Command(["fit", "--config", str(saved)]).options) == expected
    again = Command([*arguments, "--config", str(saved)]).options
    assert names(again) == expected
    assert again.trainer.callbacks[1].init_args.attach is False


@pytest.mark.parametrize("files", [["demo/source"], ["method/riskft"]])
def test_demo_configs_parse(files):
    config = parse("model/small_unet", "demo/base", *files)
    assert config.run.study == "demo"


def test_the_defaults_of_training_stay_where_a_config_changes_a_part():
    """No model config is needed for a source that describes itself: how it is trained and applied are defaults."""
    config = parse("data/nnunet", "method/riskft", "trainer/cpu", more=["--model.inferer.init_args.overlap", "0.25"])
    assert config.model.source.network is None
    inferer, optimizer, schedule = config.model.inferer, config.model.optimizer, config.model.schedule
    assert inferer.class_path == "monai.inferers.SlidingWindowInferer"
    assert inferer.init_args.roi_size == config.data.patch_size
    assert (inferer.init_args.overlap, inferer.init_args.mode, inferer.init_args.sw_batch_size) == (0.25, "gaussian", 4)
    assert (optimizer.class_path, optimizer.init_args.lr, optimizer.init_args.weight_decay) == (
        "torch.optim.AdamW",
        5e-4,
        1e-4,
    )
    assert (schedule.class_path, schedule.init_args.power) == ("torch.optim.lr_scheduler.PolynomialLR", 0.9)


def test_every_shipped_config_is_covered():
    covered = {
        *(f"data/{name}" for name in [*DATA, "augment"]),
        *(f"method/{name}" for name in METHODS),
        *(f"trainer/{name}" for name in ("cpu", "gpu", "ema", "freeze")),
        *("model/unet", "model/small_unet", "model/sgd", "demo/base", "demo/source"),
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


def test_a_seed_that_numpy_does_not_take_is_named(capsys):
    options = [part for file in ("data/fets2021", "method/scratch") for part in ("--config", f"{CONFIGS}/{file}.yaml")]
    with pytest.raises(SystemExit) as stopped:
        main(["fit", *options, "--seed_everything", "-1"])
    assert stopped.value.code == 1
    assert "seed_everything: -1 is not in bounds" in capsys.readouterr().err


def test_a_default_that_is_an_enum_can_be_saved():
    timer = "[{class_path: lightning.pytorch.callbacks.Timer, init_args: {duration: '00:12:00:00'}}]"
    command = Command(["fit", "--config", str(CONFIGS.parent / "tests/cli/tiny.yaml"), "--trainer.callbacks", timer])
    saved = yaml.safe_load(command.parser.dump(command.config))
    assert saved["fit"]["trainer"]["callbacks"][0]["init_args"]["interval"] == "step"
