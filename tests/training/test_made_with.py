"""What a record says, in what two of them differ, and which of the differences stand in the way."""

import json
from dataclasses import replace

import pytest

from riskft.analysis.runs import misnamed, started_from
from riskft.run.record import Record, read_record
from riskft.training.record.compare import (
    class_lines,
    leaked,
    misfit_line,
    order_of,
    resume_lines,
    source_lines,
    use_lines,
)
from riskft.training.record.options import differences, trained_options

CONFIG = {
    "seed_everything": 0,
    "run": {"method": "vanilla", "study": "s", "folder": None},
    "trainer": {
        "max_epochs": 3,
        "devices": 1,
        "gradient_clip_val": 1.0,
        "callbacks": [
            {"class_path": "riskft.RiskMapCallback", "init_args": {"attach": True, "store": "here"}},
            {"class_path": "riskft.RiskPanelCallback", "init_args": {}},
        ],
    },
    "data": {
        "reader": {"class_path": "riskft.ManifestReader", "init_args": {"csv": "a.csv"}},
        "split": {"class_path": "riskft.FractionSplit", "init_args": {"seed": 0}},
        "train_limit": None,
        "batch_size": 2,
        "num_workers": 0,
        "cache_dir": "cache",
        "patch_size": [16, 16, 16],
    },
    "model": {
        "source": {
            "network": {"class_path": "UNet", "init_args": {"channels": [4, 8], "out_channels": 2}},
            "checkpoint": "a.pt",
            "load": "network",
        },
        "loss": {"class_path": "riskft.RiskWeightedLoss", "init_args": {"dice_weight": 1.0}},
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.1}},
    },
}
THEN = Record(
    class_names=["background", "shell", "core"],
    in_channels=2,
    classes=[["shell", [1]], ["core", [2]]],
    background=[0],
    modalities=["t1", "t2"],
    preprocessing={"spacing": [1.0, 1.0, 1.0], "crop": True, "intensity": {"class": "ZScoreIntensity", "clip": "None"}},
    patch_size=[16, 16, 16],
    cases={"train": {"a": ["key-a", "p1"], "b": ["key-b", "b"]}, "val": {"c": ["key-c", "c"]}},
    start={"load": "network", "checkpoint": "a.pt", "digest": "d1", "fraction": 1.0},
    parts={"loss": "Loss", "optimizer": "AdamW"},
    options=trained_options(CONFIG),
)


def changed(**changes):
    """Returns the config with ``part__option=value`` changed."""
    config = json.loads(json.dumps(CONFIG))
    for name, value in changes.items():
        part = config
        *above, last = name.split("__")
        for key in above:
            part = part[key]
        part[last] = value
    return replace(THEN, options=trained_options(config))


def test_a_record_survives_the_checkpoint_and_foreign_content_is_none():
    assert read_record(json.loads(json.dumps(THEN.plain()))) == THEN
    # what others write under the same name
    assert read_record({"class_names": ["background", "a"], "in_channels": 1}) == Record(["background", "a"], 1)
    for foreign in (None, [], {"class_names": "a", "in_channels": 1}, {"class_names": ["a"]}, "text"):
        assert read_record(foreign) is None
    assert read_record({**THEN.plain(), "cases": "gone"}) == replace(THEN, cases={})


@pytest.mark.parametrize(
    ("classes", "order"),
    [
        ([["core", [2]], ["shell", [1]]], ["shell", "core"]),
        ([["shell", [1]], ["core", [2]]], None),
        ([["shell", [1]], ["nucleus", [2]]], None),
        ([["core", [2]]], None),
    ],
)
def test_only_the_order_of_the_same_classes_is_taken_over(classes, order):
    now = replace(THEN, classes=classes, class_names=["background", *(name for name, _ in classes)])
    assert order_of(THEN, now) == order
    same = sorted(now.class_names) == sorted(THEN.class_names)
    assert bool(class_lines(THEN, now)) is not same


def test_the_message_has_the_option_and_both_values():
    now = replace(THEN, class_names=["background", "shell", "core", "rare"],
                  classes=[["shell", [1]], ["core", [2]], ["rare", [3]]])  # fmt: skip
    assert use_lines(THEN, now, "test", ["a"]) == (
        [
            "data.labels.classes: {shell: [1], core: [2]} in the checkpoint, {shell: [1], core: [2], rare: [3]} in "
            "this command"
        ],
        [],
    )
    now = replace(THEN, preprocessing={**THEN.preprocessing, "spacing": [2.0, 2.0, 2.0]})
    assert use_lines(THEN, now, "predict", [])[0] == [
        "data.preprocessing.spacing: [1.0, 1.0, 1.0] in the checkpoint, [2.0, 2.0, 2.0] in this command"
    ]


def test_label_values_and_modalities_are_each_data_set_s_own():
    values = replace(THEN, classes=[["shell", [2]], ["core", [1]]])
    names = replace(THEN, modalities=["T1w", "T2w"])
    exchanged = replace(THEN, modalities=["t2", "t1"])
    fewer = replace(THEN, modalities=["t1"], in_channels=1)

    def counts(now, command, subjects):
        return tuple(map(len, use_lines(THEN, now, command, subjects)))

    # in the data set of the training, in another, and where no label is read
    assert [counts(values, *use) for use in (("test", ["a"]), ("test", ["x"]), ("predict", ["a"]))] == [
        (2, 0), (0, 2), (0, 0)
    ]  # fmt: skip
    assert [counts(names, *use) for use in (("test", ["a"]), ("test", ["x"]), ("fit", []))] == [(1, 0), (0, 1), (1, 0)]
    assert counts(exchanged, "predict", ["x"]) == counts(fewer, "predict", ["x"]) == (1, 0)


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        ({"model__optimizer__class_path": "torch.optim.SGD"}, "model.optimizer: "),
        ({"model__optimizer__init_args__lr": 0.2}, "model.optimizer.lr: "),
        ({"model__loss__init_args__dice_weight": 0.0}, "model.loss.dice_weight: 1.0 in the checkpoint, 0.0"),
        ({"data__batch_size": 4}, "data.batch_size: 2 in the checkpoint, 4"),
        ({"run__method": "riskft"}, "run.method: vanilla in the checkpoint, riskft"),
        ({"seed_everything": 1}, "seed_everything: 0 in the checkpoint, 1"),
        ({"model__source__load": "none"}, "model.source.load: network in the checkpoint, none"),
        ({"trainer__gradient_clip_val": None}, "trainer.gradient_clip_val: 1.0 in the checkpoint, null"),
        ({"trainer__callbacks": None}, "trainer.callbacks.riskft.RiskMapCallback: "),
        ({"model__source__network__init_args__channels": [8, 8]}, "model.source.network.channels: "),
    ],
)
def test_what_a_resumed_run_may_not_change(changes, option):
    (line,) = resume_lines(THEN, changed(**changes))
    assert line.replace("init_args.", "").startswith(option)


@pytest.mark.parametrize(
    "changes",
    [
        {"trainer__max_epochs": 9, "trainer__devices": 4, "data__num_workers": 8, "data__cache_dir": "elsewhere"},
        {"data__reader__init_args__csv": "moved/a.csv", "data__split__init_args__seed": 7},  # with the same cases
        {"model__source__checkpoint": "moved.pt", "model__source__network__init_args__out_channels": 5},
        {"trainer__callbacks": [{"class_path": "riskft.RiskMapCallback", "init_args": {"attach": True}},
                                {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {}}]},
    ],
)  # fmt: skip
def test_what_a_resumed_run_may_change(changes):
    assert resume_lines(THEN, changed(**changes)) == []


def test_other_training_cases_are_named_with_the_options_that_they_come_of():
    now = replace(changed(data__train_limit=1), cases={**THEN.cases, "train": {"b": ["key-b", "b"]}})
    assert resume_lines(THEN, now) == [
        "data.train_limit: null in the checkpoint, 1 in this command",
        "training cases: a, b in the checkpoint, b in this command",
    ]
    now = replace(THEN, cases={**THEN.cases, "train": {"a": ["other", "p1"], "b": ["key-b", "b"]}})
    assert resume_lines(THEN, now) == ["training cases: the files of a have changed since"]
    now = replace(THEN, start={**THEN.start, "digest": "d2", "checkpoint": "b.pt"})
    assert resume_lines(THEN, now) == ["model.source.checkpoint: b.pt holds other weights than a.pt did at the start"]


def test_without_configs_the_classes_of_loss_and_optimizer_are_compared():
    then = replace(THEN, options={})
    assert resume_lines(then, then) == []
    assert resume_lines(then, replace(then, parts={"loss": "Loss", "optimizer": "SGD"})) == [
        "model.optimizer: AdamW in the checkpoint, SGD in this command"
    ]


def test_differences_of_nested_options():
    assert differences({"a": {"b": 1, "c": [1]}}, {"a": {"b": 1, "c": [2], "d": 0}}) == [
        ("a.c", [1], [2]),
        ("a.d", None, 0),
    ]


def test_cases_of_the_training_are_known_by_content_name_and_person():
    cases = {"x": ["key-a", "x"], "b": ["new", "b"], "y": ["new", "p1"], "z": ["new", "z"]}
    assert leaked(THEN, cases) == (["x"], ["b", "y"])


def test_a_source_on_other_modalities_is_no_news_but_its_grid_and_its_cases_are():
    now = replace(THEN, modalities=["flair"], in_channels=1)
    assert source_lines(THEN, now, ["q"], ["r"]) == []
    now = replace(now, preprocessing={**THEN.preprocessing, "spacing": [2.0, 2.0, 2.0], "crop": False})
    lines = source_lines(THEN, now, ["p1", "q"], ["b"])
    assert [line.partition(":")[0] for line in lines] == ["data.preprocessing.spacing", "training cases", "test cases"]
    assert "p1" in lines[1]
    assert "b" in lines[2]
    (line,) = source_lines(THEN, replace(THEN, modalities=["t2", "t1"]), [], [])
    assert "exchanged" in line


def test_weights_of_another_network_are_one_line():
    own = {"network.a": (1, 2), "network.b": (3,)}
    assert misfit_line(own, dict(own)) is None
    line = misfit_line(own, {"network.a": (1, 3), "network.c": (3,)})
    assert "1 of another shape (the first: network.a, [1, 3] in the checkpoint, [1, 2] in the network)" in line
    assert "1 missing (the first: network.b), 1 without a place (the first: network.c)" in line


def test_a_run_is_what_it_recorded_and_not_what_it_is_called(tmp_path):
    def run(name, config, record=None):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.yaml").write_text(config)
        if record is not None:
            (folder / "record.json").write_text(json.dumps(replace(THEN, start=record).plain()))
        return folder

    with_path = "model: {source: {checkpoint: a.pt, load: %s}}"
    tuned = run("tuned", with_path % "network", {"load": "network", "fraction": 0.9})
    nothing = run("nothing", with_path % "network", {"load": "network", "fraction": 0.0})
    scratch = run("scratch", with_path % "none")
    unknown = run("unknown", "run: {}")
    assert [started_from(folder) for folder in (tuned, nothing, scratch, unknown, tmp_path / "gone")] == [
        "source", "scratch", "scratch", None, None
    ]  # fmt: skip
    assert misnamed([("s", "vanilla", tuned), ("s", "scratch,lr=1", scratch), ("s", "other", unknown)]) == []
    lines = misnamed([("s", "scratch", tuned), ("s", "vanilla", nothing), ("t", "m", tuned), ("t", "m", scratch)])
    assert [line.partition(",")[0] for line in lines] == [
        "s/scratch: is called scratch",
        "s/vanilla: was trained from scratch",
        f"t/m: {tuned} started from a source's weights",
    ]
