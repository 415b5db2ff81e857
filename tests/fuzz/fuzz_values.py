"""Values that users give by mistake, as they stand on a command line."""

import json
import re
from random import Random
from typing import Any

from fuzz_options import FOREIGN, classes, parameters, siblings

NUMBERS = (
    *("-1", "0", "1", "2", "3", "7", "0.5", "-0.5", "1.5", "1e30", "-1e30", "1e-30", "nan", ".nan", ".inf", "-.inf"),
    *("1000000000", "99999999999999999999999", "true", "two", "null", "", "[1]", "1,5", "0x10", "1_000"),
)
INTEGERS = ("-1", "0", "1", "2", "3", "7", "100", "-100", "1000000000", "99999999999999999999999")
FRACTIONS = ("0.0", "-0.5", "0.3", "0.999", "1.5", "1e30", "-1e30", "1e-30", ".nan", ".inf", "-.inf")
LISTS = (
    *("[]", "[[]]", "[null]", "[0, 0, 0]", "[-1, -1, -1]", "[1, 1, 1]", "[16, 16, 16]", "[1.5, 1.5, 1.5]", "[16, 16]"),
    *("[0.001, 1, 1]", "[1000, 1000, 1000]", "[nan, nan, nan]", "[a, b, c]", "[t1]", "[t1, t2]", "[t2, t2]", "[t3]"),
    *("t2", "{}", "null", "", "[{}]", "[[1, 2], [3]]", "{a: 1}", "[nowhere.Nothing]", "[1, two]", "[.inf, 1, 1]"),
)
MAPPINGS = (
    *("{}", "{a: 1}", "{a: [1]}", "{a: [1], b: [1]}", "{a: []}", "{a: [-1]}", "{a: [x]}", "{1: [2]}", "{a: null}"),
    *("{a: [1.5]}", "{shell: [1]}", "{core: [2], shell: [1]}", "{background: [1]}", "{a: [300]}", "[1]", "null", "x"),
    *("{classes: {}}", "{classes: {a: [1]}}", "{classes: null}", "{class_path: nowhere.Nothing}", "{init_args: {}}"),
)
PATHS = (
    *("", "missing", "missing/deeper", "folder", "cohort", "cohort/manifest.csv", "source.pt", "tiny.yaml", "dangling"),
    *("empty", "binary", "text", "sweep.yaml", "runs", "runs/tiny/vanilla/seed=0", "runs/tiny", "/dev/null/nothing"),
    *("runs/tiny/vanilla/seed=0/checkpoints/last.ckpt", "runs/tiny/vanilla/seed=0/checkpoints", "last", "best"),
    *("cohort/case00_t2.nii.gz", "runs/tiny/vanilla/seed=0/config.yaml", "/proc/nothing/new", "a b/é", "x" * 300, ".."),
    *("configs/method/riskft.yaml", "runs/sweeps/swept", "null", "layouts/msd", "layouts/nnunet", "images", "."),
)
WORDS = (
    *("", " ", "null", "true", "false", "yes", "abc", "é", "auto", "none", "x" * 5000, "[", "{a: [", "]", "a: b", "'"),
    *("${data.nothing}", "${oc.env:NOTHING}", "${", "!!python/object:os.system", "%(x)s", "@missing", "- a", "\t", "#"),
    *(
        "{class_path: 3}",
        "{class_path: riskft.ZScoreIntensity, init_args: 3}",
        "{class_path: [a]}",
        "{nothing: 1}",
        "1/0",
        "a,b",
    ),
)
BOOLEANS = ("true", "false", "1", "0", "2", "maybe", "", "null", "[]", "[true]", "-1", "False", "yes")
#: Options whose large values ask for what nobody can wait for, or for processes, nodes and memory that are not there.
WEIGHTY = re.compile(
    r"(min_epochs|min_steps|num_workers|workers|devices|num_nodes|subjects|jobs|nodes|patches_per_volume|queue_length|"
    r"accumulate_grad_batches|buffer_steps|sw_batch_size|num_sanity_val_steps|network\.init_args\.\w+)$"
)
#: These would be waited for: a network, other nodes, a login.
LEFT_ALONE = re.compile(r"(wandb\.offline|num_nodes|trainer\.devices|^devices$|^nodes$|^help$)")
LARGE = re.compile(r"\d{4,}|1e30|inf")


def value_for(name: str, current: Any, random: Random) -> str:
    """Returns a value for an option: mostly of the kind that it has, for such get furthest."""
    if random.random() < 0.12:
        kinds: tuple[tuple[str, ...], ...] = (NUMBERS, LISTS, MAPPINGS, PATHS, WORDS, BOOLEANS)
        value = random.choice(random.choice(kinds))
    elif name.endswith("class_path") or (isinstance(current, dict) and "class_path" in current):
        return class_for(current, random, alone=name.endswith("class_path"))
    else:
        value = random.choice(_like(current))
    return "2" if WEIGHTY.search(name) and LARGE.search(value) else value


def _like(current: Any) -> tuple[str, ...]:
    kinds: dict[type, tuple[str, ...]] = {
        bool: BOOLEANS,
        int: (*INTEGERS, *INTEGERS, *INTEGERS, *NUMBERS),
        float: (*INTEGERS, *FRACTIONS, *FRACTIONS, *FRACTIONS, *NUMBERS),
        list: LISTS,
        tuple: LISTS,
        dict: MAPPINGS,
        type(None): (*INTEGERS, *INTEGERS, *NUMBERS, *LISTS[:6], *PATHS),
    }
    return kinds.get(type(current), (*PATHS, *WORDS))


def class_for(current: Any, random: Random, alone: bool = False) -> str:
    """Returns a class of the same family, or of another one, with options of any value.

    Args:
        current: The class path in use, or a dictionary with it.
        random: Where chance comes from.
        alone: Return the class path and nothing else.
    """
    path = current.get("class_path") if isinstance(current, dict) else current
    family = siblings(path) if isinstance(path, str) else []
    if not family or random.random() < 0.25:
        family = [*FOREIGN, *classes()]
    chosen = random.choice(family)
    if alone:
        return chosen
    names = parameters(chosen)
    given = random.sample(names, min(len(names), random.choice((0, 1, 1, 2))))
    if random.random() < 0.1:
        given.append("nothing")
    kinds = (INTEGERS, FRACTIONS, FRACTIONS, NUMBERS, LISTS, MAPPINGS, WORDS)
    arguments = {name: _plain(random.choice(random.choice(kinds))) for name in given}
    arguments = {name: 2 if WEIGHTY.search(name) else value for name, value in arguments.items()}
    return json.dumps({"class_path": chosen, "init_args": arguments})


def _plain(text: str) -> Any:
    """Returns a number where a text is one, so that it passes the first check."""
    try:
        return json.loads(text)
    except ValueError:
        return text
