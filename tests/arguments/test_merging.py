"""Several configs: all their callbacks count, in any order, and a class that is listed again keeps one entry."""

import itertools
from pathlib import Path
from unittest import mock

import pytest
import yaml

from riskft.arguments.given import options_of
from riskft.arguments.merging import merged_callbacks, warn_of_two_methods
from riskft.errors import InputError

MAP, PANEL, EMA = "riskft.RiskMapCallback", "riskft.RiskPanelCallback", "riskft.AveragedWeights"


def listed(*arguments):
    """Returns the config that the merge adds, or None if it adds none."""
    result = merged_callbacks(options_of(["fit", *arguments]))
    if not result:
        return None
    option, text = result
    assert option == "--config"
    return yaml.safe_load(text)["trainer"]


def config(*entries, **more):
    return ["--config", yaml.safe_dump({"trainer": {"callbacks": list(entries), **more}})]


def entry(name, **options):
    return {"class_path": name, "init_args": options}


def test_one_list_is_left_to_the_parser():
    assert listed(*config(MAP, PANEL)) is None
    assert listed("--trainer.callbacks", "[]") is None
    assert listed(*config(MAP), "--trainer.callbacks", "null") is None
    assert listed(*config(MAP), "--trainer.callbacks.init_args.attach", "false") is None


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_three_lists_count_in_every_order(order):
    configs = [config(entry(MAP, attach=False), PANEL), config(entry(EMA, span=0.2)), config(entry(MAP, use_mask=True))]
    found = listed(*itertools.chain.from_iterable(configs[index] for index in order))["callbacks"]
    options = {one["class_path"]: one.get("init_args") for one in found}
    assert options == {MAP: {"attach": False, "use_mask": True}, PANEL: None, EMA: {"span": 0.2}}


def test_the_later_options_of_a_class_win_one_by_one():
    first = entry(MAP, attach=False, mapping={"scope": "volume", "weight": entry("riskft.ExponentialWeight", base=2.0)})
    second = entry(
        "riskft.training.risk_maps.RiskMapCallback", mapping={"temper": False, "weight": entry("riskft.PowerWeight")}
    )
    (found,) = listed(*config(first), *config(second))["callbacks"]
    mapping = {"scope": "volume", "temper": False, "weight": entry("riskft.PowerWeight")}
    assert found["init_args"] == {"attach": False, "mapping": mapping}


def test_two_of_a_class_in_one_list_stay_two():
    keep = "lightning.pytorch.callbacks.ModelCheckpoint"
    both = [entry(keep, monitor="val/dice"), entry(keep, monitor="val/loss")]
    found = listed(*config(*both), *config(EMA))["callbacks"]
    assert found == [*both, {"class_path": EMA}]
    # and so a saved config that is given again adds nothing
    assert listed(*config(*both), *config(*both))["callbacks"] == both


def test_every_way_to_list_counts():
    appended = ["--config", yaml.safe_dump({"trainer": {"callbacks+": [EMA]}})]
    dotted = ["-c", yaml.safe_dump({"trainer.callbacks": entry("Timer", duration="00:01:00:00")})]
    option = ["--trainer.callbacks+", "riskft.L2SP", "--trainer.callbacks.init_args.alpha", "2.0"]
    group = ["--trainer", yaml.safe_dump({"callbacks": [PANEL]})]
    found = listed(*config(MAP), *appended, *dotted, *option, *group)["callbacks"]
    assert [one["class_path"] for one in found] == [MAP, EMA, "Timer", "riskft.L2SP", PANEL]
    assert found[3]["init_args"] == {"alpha": 2.0}


def test_an_option_belongs_to_the_callback_that_was_listed_last():
    """Even if that class has its place further up."""
    again = ["--trainer.callbacks+=riskft.L2SP", "--trainer.callbacks.alpha=10"]
    found = listed(*config(entry("riskft.L2SP", alpha=5.0, skip=[]), PANEL), *again)["callbacks"]
    assert found == [entry("riskft.L2SP", alpha=10, skip=[]), {"class_path": PANEL}]


def test_other_options_are_not_looked_into(tmp_path):
    """A checkpoint would take long to read."""
    file = tmp_path / "large.ckpt"
    file.write_text(yaml.safe_dump({"callbacks": [EMA]}))
    assert listed(*config(MAP), "--model.source.checkpoint", str(file)) is None
    with mock.patch.object(Path, "read_text", side_effect=AssertionError):
        assert listed(*config(MAP), "--model.source.checkpoint", str(file), "--ckpt_path", str(file)) is None


def test_two_methods_are_warned_of(caplog):
    first, second = (["--config", yaml.safe_dump({"run": {"method": name}})] for name in ("riskft", "scratch"))
    for arguments in (first, [*first, *first], [*first, "--run.method", "mine"]):
        warn_of_two_methods(options_of(["fit", *arguments]))
    assert not caplog.records
    warn_of_two_methods(options_of(["fit", *first, *second]))
    assert "run.method to riskft, then to scratch" in caplog.text


@pytest.mark.parametrize("wrong", ["5", "[5]", "[{init_args: {}}]", "[{class_path: 5}]", "[[]]", "{a: b}"])
def test_what_names_no_class_is_left_to_the_parser(wrong):
    assert listed(*config(MAP), *config(EMA), "--trainer.callbacks", wrong) is None


def test_a_class_that_cannot_be_imported_is_kept_for_the_parser_to_report():
    entries = [entry("nowhere.Nothing", a=1), {"class_path": MAP, "init_args": {"mapping": {"class_path": 5}}}]
    assert listed(*config(*entries), *config(*entries))["callbacks"] == entries


def test_an_empty_list_removes_what_was_listed_before_it():
    assert listed(*config(MAP, PANEL), "--trainer.callbacks=[]")["callbacks"] == []
    assert listed(*config(MAP), "--trainer.callbacks=[]", *config(EMA))["callbacks"] == [{"class_path": EMA}]


def test_a_dropped_callback_is_left_out_whichever_file_comes_first():
    drop = ["--trainer.drop_callbacks", "[riskft.training.panels.RiskPanelCallback]"]
    for arguments in ([*config(MAP, PANEL), *drop], [*drop, *config(MAP, PANEL)]):
        assert [one["class_path"] for one in listed(*arguments)["callbacks"]] == [MAP]
    both = listed(*config(MAP, PANEL, drop_callbacks=[PANEL]), *config(EMA, drop_callbacks=["AveragedWeights"]))
    assert [one["class_path"] for one in both["callbacks"]] == [MAP]
    assert both["drop_callbacks"] == [PANEL, "AveragedWeights"]


def test_a_dropped_class_that_does_not_exist_is_named():
    with pytest.raises(InputError, match=r"trainer.drop_callbacks: there is no class 'riskft.RiskPanel'"):
        listed(*config(MAP), "--trainer.drop_callbacks", "[riskft.RiskPanel]")
