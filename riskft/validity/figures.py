"""ROC curves of the predictors."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from riskft.plots.figure import COLOURS, new_figure
from riskft.validity.outcomes import NEGATIVE_TRANSFER
from riskft.validity.scores import RATES
from riskft.validity.table import RunResult

LABEL_FREE = ("source entropy", "EEP entropy")
BLACK = "#333333"  # for the seventh predictor


def roc_figure(results: Sequence[RunResult]) -> Figure:
    """Draws each predictor's ROC curve for negative transfer, pooled over voxels; one axes per run."""
    titles = list(dict.fromkeys(result.run.title for result in results))
    figure = new_figure(5.0 * len(titles), 5.0)
    for axes, title in zip(figure.subplots(1, len(titles), squeeze=False)[0], titles, strict=True):
        group = [result for result in results if result.run.title == title]
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
        for place, name in enumerate(group[0].curves):
            curves = np.array([result.curves[name] for result in group if name in result.curves])
            curves = curves[~np.isnan(curves).any(1)]
            if not len(curves):
                continue
            areas = [result.pooled[NEGATIVE_TRANSFER, name].auroc for result in group if name in result.curves]
            axes.plot(
                RATES,
                curves.mean(0),
                "--" if name in LABEL_FREE else "-",
                color=(*COLOURS, BLACK)[place % (len(COLOURS) + 1)],
                label=f"{name} {np.nanmean(areas):.2f}",
            )
        axes.set_xlabel("share of the other voxels")
        axes.set_ylabel("share of the negative-transfer voxels found")
        axes.set_title(f"{title}: AUROC, pooled", fontsize=10, parse_math=False)
        axes.set_aspect("equal")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8, frameon=False, loc="lower right")
    return figure
