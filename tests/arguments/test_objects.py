"""What classes of other libraries refuse is told as bad input; riskft's own errors stay visible."""

import pytest
import torch
from jsonargparse import ArgumentParser
from torch import nn

from riskft.arguments.objects import refused_objects
from riskft.commands.messages import message
from riskft.data.labels import LabelMap
from riskft.data.splits import FractionSplit
from riskft.errors import InputError
from riskft.training.trials import try_training


class Broken(FractionSplit):
    """A class of riskft's with a mistake in it."""

    def __init__(self) -> None:
        raise ZeroDivisionError


Broken.__module__ = "riskft.broken"


def built(kind, value):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--part", type=kind)
    with refused_objects(parser):
        return parser.instantiate_classes(parser.parse_args([f"--part={value}"])).part


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ('{"class_path": "torch.nn.Dropout", "init_args": {"p": 2}}', "between 0 and 1, but got 2"),
        ('{"class_path": "monai.networks.nets.UNet", "init_args": {"spatial_dims": 3, "in_channels": 1, '
         '"out_channels": 2, "channels": [4], "strides": []}}', "the length of `channels` should be no less than 2"),
    ],
)  # fmt: skip
def test_a_class_that_refuses_its_options_is_named_with_them(value, said):
    with pytest.raises(ValueError, match=r".*") as refused:
        built(nn.Module | None, value)
    text = message(refused.value)
    assert text is not None
    assert "cannot be built with the options given: " in text
    assert text.startswith(("torch.nn", "monai."))  # without the parser's words around it
    assert said in text
    assert "p=2" in text or "channels=[4]" in text


def test_an_optimizer_is_tried_before_it_is_needed():
    from collections.abc import Callable

    from torch.optim import Optimizer

    make = built(Callable[[list], Optimizer], '{"class_path": "torch.optim.SGD", "init_args": {"lr": -1}}')
    with pytest.raises(InputError, match=r"SGD cannot be built with the options .* Invalid learning rate: -1"):
        try_training(make, None)


def test_a_mistake_of_riskft_s_own_is_not_put_down_to_the_user():
    with pytest.raises(ZeroDivisionError):
        built(FractionSplit, f'{{"class_path": "{__name__}.Broken"}}')


def test_a_value_that_the_parser_notices_only_now_is_bad_input():
    options = ["--labels.classes={a: [1]}", "--labels.background=null"]
    parser = ArgumentParser(exit_on_error=False, parser_mode="omegaconf+")
    parser.add_argument("--labels", type=LabelMap | None)
    with pytest.raises(InputError, match="The options cannot be used") as refused, refused_objects(parser):
        parser.instantiate_classes(parser.parse_args(options))
    assert "null where a list is expected" in str(refused.value)


def test_a_step_of_the_optimizer_is_tried_too():
    with pytest.raises(InputError, match=r"model.optimizer \(AdamW\) fails when it is used"):
        try_training(lambda groups: torch.optim.AdamW(groups, differentiable=None), None)
    try_training(torch.optim.Adam, None)
    try_training(lambda groups: torch.optim.LBFGS([groups[0]["params"][0]]), None)
