"""One draw of the fuzz: a sound command of a sound workplace, and up to three mistakes in it."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

import fuzz_files as spoil
from fuzz_options import lightning_options, other_options
from fuzz_values import LEFT_ALONE, PATHS, WORDS, value_for
from fuzz_world import SCRATCH, SHORT, SWEEPS, VANILLA, World, fit_options

METHODS = sorted(path.stem for path in (Path(__file__).parents[2] / "configs/method").glob("*.yaml"))
LIGHTNING = ("fit", "validate", "test", "predict", "riskmap")
#: How often each command is drawn.
COMMANDS = {
    "fit": 25, "validate": 5, "test": 8, "predict": 9, "riskmap": 8, "data check": 13, "data phantom": 3, "convert": 7,
    "sweep": 7, "sweep status": 2, "sweep offline": 2, "sweep run": 2, "sweep agent": 2, "compare": 9, "validity": 6,
}  # fmt: skip


@dataclass
class Draw:
    """A command line, and what was done to the files before it; ``name`` makes it again."""

    name: str
    command: str
    arguments: list[str]
    mistakes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"[{self.name}] riskft {shlex.join(self.arguments)}\n    mistakes: {'; '.join(self.mistakes)}"


def make_draw(world: World, name: str, folder: Path) -> Draw:
    """Returns a draw, and spoils files in ``folder``, its copy of the workplace (and the working directory)."""
    random = Random(name)
    command = random.choices([*COMMANDS], [*COMMANDS.values()])[0]
    draw = Draw(name, command, _sound(command, world, random))
    _odds(folder)
    ways = [_option, _option, _option, _file, _file, _file, _line]
    for _ in range(random.choice((1, 1, 2, 3))):
        random.choice(ways)(draw, folder, random)
    return draw


def _odds(folder: Path) -> None:
    """Puts the files there that values in ``fuzz_values.PATHS`` name."""
    (folder / "empty").touch()
    (folder / "binary").write_bytes(bytes(range(256)))
    (folder / "text").write_text("not what you expect\n")
    (folder / "dangling").symlink_to("nowhere")


def _sound(command: str, world: World, random: Random) -> list[str]:
    """Returns a command line that succeeds."""
    options = fit_options(random.choice(METHODS))
    layout = world.layouts[random.choice([*world.layouts])] if random.random() < 0.25 else []
    more = [f"--config=configs/trainer/{name}.yaml" for name in ("ema", "freeze") if random.random() < 0.1]
    run = random.choice((VANILLA, SCRATCH))
    trained = ["--config", f"{run}/config.yaml"]
    lines: dict[str, Callable[[], list[str]]] = {
        "fit": lambda: [
            *("fit", *options, *more, *SHORT, *layout),
            *random.choice(
                (
                    ["--run.folder=runs/new"],
                    ["--run.folder=runs/new"],
                    [f"--run.folder={run}", "--run.overwrite=true"],
                    [f"--run.folder={run}", "--ckpt_path=last", "--trainer.max_epochs=2"],
                )
            ),
        ],
        "riskmap": lambda: ["riskmap", *options, *SHORT, *layout, "--out=maps"],
        "predict": lambda: ["predict", *trained, *random.choice(([], ["--out=out"], ["--images=images", "--out=out"]))],
        "data check": lambda: ["data", "check", *options, *layout],
        "data phantom": lambda: ["data", "phantom", "phantoms", "--subjects=1", "--spacing=8"],
        "convert": lambda: ["convert", random.choice(("source.pt", f"{run}/checkpoints/last.ckpt")), "new.pt"],
        "sweep": lambda: ["sweep", random.choice(SWEEPS), *(["--local"] if random.random() < 0.3 else [])],
        "sweep status": lambda: ["sweep", "status", "runs/sweeps/swept"],
        "sweep offline": lambda: ["sweep", "offline", "runs/sweeps/swept"],
        "sweep run": lambda: ["sweep", "run", "runs/swept/scratch,batch_size=1/seed=0", "--step=fit"],
        "sweep agent": lambda: ["sweep", "agent", "sweep.yaml", "--data.batch_size=1"],
        "compare": lambda: ["compare", "runs/tiny", "--out=report"],
        "validity": lambda: ["validity", VANILLA, f"--scratch={SCRATCH}", "--out=validity"],
    }
    return lines[command]() if command in lines else [command, *trained]


# -- mistakes ---------------------------------------------------------------------------------------------------------


def _option(draw: Draw, folder: Path, random: Random) -> None:
    """Gives an option another value, or a new option."""
    options = known_options(draw.command)
    names = [name for name in options if not LEFT_ALONE.search(name)] or ["nothing"]
    # those of the trainer are Lightning's own, and many
    own = [name for name in names if not name.startswith("trainer.")]
    name = random.choice(own if own and random.random() < 0.75 else names)
    value = value_for(name, options.get(name), random)
    given = [f"--{name}={value}"] if random.random() < 0.8 else [f"--{name}", value]
    draw.arguments += given
    draw.mistakes.append(shlex.join(given)[:200])


def _line(draw: Draw, folder: Path, random: Random) -> None:
    """Leaves out, doubles, or adds a part of the command line."""
    what = random.choice(("leave out", "double", "unknown", "no value", "positional", "another", "append", "config"))
    names = [*known_options(draw.command)] or ["nothing"]
    positions = [k for k, part in enumerate(draw.arguments) if k > 1 and not part.startswith("-")]
    if what == "another" and positions:
        place = random.choice(positions)
        part, draw.arguments[place] = draw.arguments[place], random.choice(PATHS)
        draw.mistakes.append(f"{draw.arguments[place]} where {part} was")
        return
    name = random.choice(names)
    if what in ("leave out", "double") and len(draw.arguments) > 1:
        place = random.randrange(1, len(draw.arguments))
        part = draw.arguments[place]
        if any(part.startswith(short.partition("=")[0]) for short in SHORT):
            return
        draw.arguments[place : place + 1] = [] if what == "leave out" else [part, part]
        draw.mistakes.append(f"{what} {part}")
        return
    if LEFT_ALONE.search(name):
        return
    more = {
        "unknown": ["--nothing=1"],
        "no value": [f"--{name}"],
        "positional": [random.choice((*PATHS, *WORDS))],
        "append": [f"--{name}+={random.choice(('1', 't1', '[]', ''))}"],
        "config": [f"--config={random.choice(PATHS)}"],
    }.get(what, ["--help"])
    draw.arguments += more
    draw.mistakes.append(shlex.join(more)[:200])


def _file(draw: Draw, folder: Path, random: Random) -> None:
    """Spoils a file that the command reads."""
    path = random.choice(_read_by(draw, folder))
    if not path.is_file() or path.is_symlink():
        return  # spoilt already
    kinds: list[spoil.Spoil] = [spoil.anything]
    if path.suffix in (".yaml", ".json"):
        kinds += [spoil.text, spoil.structure, spoil.structure, spoil.structure]
    elif path.suffix in (".csv", ".txt"):
        kinds += [spoil.text] * 4
    elif path.suffix == ".pt":
        kinds += [spoil.checkpoint] * 4
    elif path.suffix == ".ckpt":
        kinds += [spoil.checkpoint, *[spoil.trained] * 4]
    elif path.suffix in (".gz", ".nii"):
        kinds += [spoil.volume] * 3
    try:
        said = random.choice(kinds)(path, random)
    except Exception as error:  # spoilt already, so that it cannot be read
        said = f"nothing more ({type(error).__name__})"
    draw.mistakes.append(f"{path.relative_to(folder)}: {said}")


def _read_by(draw: Draw, folder: Path) -> list[Path]:
    def under(*patterns: str) -> list[Path]:
        found = {path for pattern in patterns for path in folder.glob(pattern)}
        return sorted(path for path in found if path.is_file())

    data = under("cohort/*") + [folder / "cohort/manifest.csv"] * 6
    runs = under("runs/tiny/**/*")
    if draw.command in ("fit", "riskmap", "data check"):
        configs = [folder / part.partition("=")[2] for part in draw.arguments if part.startswith("--config=")]
        source = [folder / "source.pt"] * (12 if draw.command != "data check" else 0)
        layouts = under("layouts/**/*") if any("layouts/" in part for part in draw.arguments) else []
        return [
            *data,
            *configs * 4,
            *source,
            *layouts,
            *(runs if draw.command == "fit" else []),
            *under("cache/*.json"),
        ]
    if draw.command in LIGHTNING:
        return [*data, *runs * 2, *under("images/*"), *under("runs/tiny/**/*.yaml", "runs/tiny/**/*.ckpt") * 4]
    if draw.command == "convert":
        return [folder / "source.pt", *under("runs/tiny/**/*.ckpt")]
    if draw.command.startswith("sweep"):
        swept = under(*SWEEPS, "runs/sweeps/**/*", "runs/swept/**/*")
        return [*swept * 3, folder / "tiny.yaml", folder / "configs/method/scratch.yaml"]
    return [*runs, *under("runs/tiny/**/*.csv", "runs/tiny/**/*.json", "runs/tiny/**/*.yaml") * 2] or [
        folder / "tiny.yaml"
    ]


@lru_cache
def known_options(command: str) -> dict[str, Any]:
    """Returns the options of a command, with values of their kind."""
    if command == "data check":
        options = lightning_options("fit", [*fit_options("riskft")])
        return {name: value for name, value in options.items() if name.startswith("data") or name == "config"}
    if command in LIGHTNING:
        return lightning_options(command, fit_options("riskft"))
    return other_options([*command.split(), *(["x", "y"] if command == "convert" else ["x"])])
