"""The panel of an unlabelled scan."""

import numpy as np

from riskft.plots.unlabelled import UnlabelledPanel, risky_slices, unlabelled_figure


def panel(prediction, risk):
    image = np.random.default_rng(0).normal(size=risk.shape).astype(np.float32)
    return UnlabelledPanel("case", image, prediction, risk, (1.0, 1.0, 5.0))


def test_slices_are_those_of_the_highest_risk_near_the_predicted_foreground():
    risk = np.zeros((20, 18, 16), dtype=np.float32)
    risk[15, 13, 12] = 0.9  # far from the prediction
    risk[4, 6, 5] = 0.5  # 4 mm from it, and 1 voxel of 5 mm
    prediction = np.zeros(risk.shape, dtype=np.uint8)
    assert risky_slices(panel(prediction, risk)) == [15, 13, 12]
    prediction[2, 2, 4] = 1
    assert risky_slices(panel(prediction, risk)) == [4, 6, 5]
    figure = unlabelled_figure(panel(prediction, risk), ["background", "tumour"])
    assert [axes.get_title() for axes in figure.axes[:3]] == ["image", "prediction", "expected risk"]
    assert figure.axes[0].get_ylabel() == "sagittal 4"
