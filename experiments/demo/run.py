"""Runs the main job on a phantom cohort, step by step on the command line, as a user would type it.

Writes a cohort and trains a source network on T1w. Then, for T2w and three labelled cases: decides among the source,
the source with inverted images and training from scratch, and goes on with the winner, with risk maps and the
risk-weighted loss; trains by plain fine-tuning with the same budget and from scratch. Tests all on unseen cases and
compares them.
"""

import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import yaml
from rich.console import Console

from riskft.files import write_json
from riskft.run.folder import RunFolder
from riskft.sweep.local import prepared_processes

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = Path("configs")
SHARED = (CONFIGS / "model/small_unet.yaml", CONFIGS / "demo/base.yaml")
DEMO = Path("runs/demo")
CONTROLS = ("vanilla", "scratch")
console = Console()


def riskft(*arguments: str) -> None:
    """Prints a command and runs it in its own process, forked from one that has imported everything already."""
    console.print(f"\n[bold]$ riskft {shlex.join(arguments)}[/bold]", soft_wrap=True, highlight=False)
    process = prepared_processes().Process(target=_run, args=(arguments,))  # type: ignore[attr-defined]
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(process.exitcode)


def _run(arguments: Sequence[str]) -> None:
    from riskft.cli import main as command

    command(arguments)


def configs(name: str) -> list[str]:
    """Returns the options that give a run's config files: what all runs share, and one of its own."""
    return [part for file in [*SHARED, CONFIGS / name] for part in ("--config", str(file))]


def run_folder(method: str) -> RunFolder:
    """Returns a run's folder."""
    return RunFolder(DEMO / method / "seed=0")


def train_source() -> None:
    """Trains the source network, unless the same one exists."""
    files = [*SHARED, CONFIGS / "demo/source.yaml"]
    recipe = {str(file): file.read_text() for file in files}
    done = run_folder("source").path / "finished.json"
    if done.is_file() and json.loads(done.read_text()) == recipe:
        console.print(f"\nReusing the source network in {done.parent}.")
        return
    done.unlink(missing_ok=True)
    riskft("fit", *configs("demo/source.yaml"), "--run.overwrite", "true")
    write_json(done, recipe)


def decided() -> RunFolder:
    """Ranks the candidates, trains the winner to its end, and returns its run folder."""
    config = DEMO / "winner.yaml"
    source = run_folder("source").checkpoints / "best.ckpt"
    riskft(
        *("rank", *configs("method/riskft.yaml"), "--sources", str(source), "--out", str(DEMO / "rank")),
        *("--finish", "false", "--config-out", str(config), "--overwrite", "true"),
    )
    riskft("fit", "--config", str(config))
    return RunFolder(Path(yaml.safe_load(config.read_text())["run"]["folder"]))


def main() -> None:
    """Runs everything."""
    os.chdir(ROOT)
    start = time.monotonic()
    riskft("data", "phantom", str(DEMO / "cohort"), "--subjects", "24")
    train_source()
    made = decided()
    runs = [made]
    for method in CONTROLS:
        if made.name()[1] != method:
            riskft("fit", *configs(f"method/{method}.yaml"), "--run.overwrite", "true")
            runs.append(run_folder(method))
    for run in runs:
        riskft("test", "--config", str(run.config))
    console.print()
    report = DEMO / "report"
    folders = [str(run.path) for run in runs]
    riskft("compare", *folders, "--out", str(report), "--overwrite", "true")
    riskft("compare", *folders, "--metric", "hd95_mm", "--out", str(DEMO / "report_hd95"), "--overwrite", "true")
    console.print("\nRisk heatmaps:", *sorted(made.heatmaps.glob("*.png")), sep="\n  ", soft_wrap=True)
    console.print("P(y|z) and weights:", *sorted(made.risk.path.glob("*.png")), sep="\n  ", soft_wrap=True)
    console.print(
        "W&B runs (offline):",
        *(part for run in runs for part in sorted(run.wandb.glob("offline-run-*"))[-2:]),
        sep="\n  ",
        soft_wrap=True,
    )
    curves = max(path for path in made.wandb.glob("offline-run-*") if not path.name.endswith("-test"))
    python = Path(sys.executable)
    beside = python.parent.relative_to(ROOT) if python.is_relative_to(ROOT) else python.parent
    console.print(
        f"\nDone in {time.monotonic() - start:.0f} s. Seven cases and one seed show how it works, "
        "not whether it helps.\n"
        f"Open {report / 'report.html'} in a browser: tables, curves, and a viewer of the risk maps.\n"
        "Next:\n"
        f"  {beside}/wandb beta leet {curves}   look at the curves in the terminal\n"
        f"  {beside}/wandb sync {curves}        put them on the web (needs a login)\n"
        f"  {beside}/riskft riskmap --config {made.config} --out riskmaps   maps as NIfTI\n"
        f"  {beside}/riskft predict --config {made.config}                  segmentations\n"
        f"  {beside}/riskft fit --help                                       all options",
        soft_wrap=True,
        highlight=False,
    )


if __name__ == "__main__":
    main()
