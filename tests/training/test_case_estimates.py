"""Estimates of single cases, and validation cases that cannot be listed."""

from pathlib import Path

import numpy as np
import pytest

from riskft.data.datamodule import RiskDataModule
from riskft.data.labels import LabelMap
from riskft.data.readers import UnlabelledReader
from riskft.data.records import Case
from riskft.errors import InputError
from riskft.evaluation.cases import Segmentation
from riskft.training.case_estimates import CaseEstimates


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_name_their_case(tmp_path, value):
    data = RiskDataModule(UnlabelledReader(tmp_path / "gone"), ["t1"], LabelMap({"a": [1]}))
    estimates = CaseEstimates(tmp_path, data, None, {})
    assert estimates.labelled == []
    classes, probabilities = np.zeros((3, 3, 3), np.uint8), np.full((2, 3, 3, 3), 0.5, np.float32)
    probabilities[1, 2, 2, 2] = value
    with pytest.raises(InputError, match="case1: the network gives NaN or infinite values"):
        estimates.of(Case("case1", {"t1": Path("t1.nii")}), data, Segmentation("case1", classes, probabilities), None)
