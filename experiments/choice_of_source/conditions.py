"""The conditions of the study: a target task with a few labelled cases, and the sources to choose from."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

RUNS = Path("runs/evidence")
CONTRASTS = ("t1", "t1ce", "t2", "flair")
QUIET = ["--trainer.drop_callbacks=[riskft.RiskPanelCallback]"]


@dataclass(frozen=True)
class Condition:
    """A target, and the sources to choose from."""

    name: str
    arguments: list[str]  #: The options of ``riskft fit``, without the source and the seed.
    #: Values of ``model.source.checkpoint``, with ``{seed}`` where there is one network per seed.
    sources: list[str]

    def fit(self, seed: int) -> list[str]:
        """Returns the options of one seed, which also draws the labelled cases."""
        return [*self.arguments, f"--seed_everything={seed}", f"--data.train_limit_seed={seed}"]


def phantom_tumours(more: list[str]) -> Iterator[Condition]:
    """Yields each contrast as the target, with the other three as sources."""
    for target in CONTRASTS:
        arguments = [
            "--config=configs/model/small_unet.yaml",
            "--config=experiments/phantom_cross_modality/base.yaml",
            "--config=configs/method/riskft.yaml",
            f"--data.modalities=[{target}]",
            "--model.optimizer.init_args.lr=0.01",  # riskft's best, phantom_cross_modality/results/learning_rates.csv
            *more,
        ]
        folder = RUNS / "phantom_cross_modality"
        sources = [
            str(folder / f"source,modalities={source}/seed={{seed}}/checkpoints/best.ckpt")
            for source in CONTRASTS
            if source != target
        ]
        yield Condition(f"phantom_tumours_{target}", arguments, sources)


def conditions(epochs: int | None) -> list[Condition]:
    """Returns all conditions, with the number of epochs of each study's config or with another."""
    more = [] if epochs is None else [f"--trainer.max_epochs={epochs}"]
    return list(phantom_tumours(more))
