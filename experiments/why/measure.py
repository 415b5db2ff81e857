"""Measures what a voxel's weight does: kinds of errors, shares of the gradient, and correlations of hardness."""

import numpy as np
import torch
import torch.nn.functional as nnf
from scipy.stats import rankdata
from torch import Tensor, nn

KINDS = ("miss", "false alarm", "other class")
PLACES = ("right", "right, at the border", "wrong, at the border", "wrong")


def error_kinds(target: Tensor, prediction: Tensor) -> dict[str, Tensor]:
    """Returns which voxels have each kind of error, bool of the target's shape."""
    return {
        "miss": (target > 0) & (prediction == 0),
        "false alarm": (target == 0) & (prediction > 0),
        "other class": (target > 0) & (prediction > 0) & (target != prediction),
    }


def changes(target: Tensor, plain: Tensor, weighted: Tensor, border: Tensor) -> dict[tuple[str, str], tuple[int, ...]]:
    """Counts the errors of plain fine-tuning, those of them that weighting corrects, and its new errors.

    Args:
        target: (X, Y, Z) classes.
        plain: (X, Y, Z) the plain network's prediction.
        weighted: (X, Y, Z) the weighted one's.
        border: (X, Y, Z) bool, voxels that touch another class.

    Returns:
        (wrong, corrected, new) by kind of error and place.
    """
    before, after = error_kinds(target, plain), error_kinds(target, weighted)
    right_before, right_after = plain == target, weighted == target
    return {
        (kind, place): tuple(
            int((voxels & where).sum())
            for voxels in (before[kind], before[kind] & right_after, after[kind] & right_before)
        )
        for kind in KINDS
        for place, where in (("at the border", border), ("elsewhere", ~border))
    }


def places(logits: Tensor, target: Tensor, border: Tensor) -> Tensor:
    """Returns each voxel's index into ``PLACES``, of logits (B, Y, *spatial) and target, border (B, *spatial)."""
    wrong = logits.argmax(1) != target
    return torch.where(wrong, torch.where(border, 2, 3), torch.where(border, 1, 0))


def gradient_sums(logits: Tensor, target: Tensor, weight: Tensor | None, place: Tensor) -> Tensor:
    """Returns the size of w_i CE_i's gradient by place, (4,) float64: the sum over voxels of w_i |dCE_i/dlogits|_1.

    With p the softmax dCE_i/dlogits = p_i - onehot(y_i), whose absolute values add up to 2 (1 - p_i(y_i)).
    """
    true = logits.float().softmax(1).gather(1, target[:, None])[:, 0]
    size = (2 * (1 - true)).double()
    size = size if weight is None else size * weight.double()
    return torch.bincount(place.flatten(), weights=size.flatten(), minlength=len(PLACES))


def push_to_background(logits: Tensor, target: Tensor, weight: Tensor | None) -> tuple[float, float]:
    """Returns the net push of w_i CE_i towards the background, and the size of its push in all directions.

    A step of descent moves a voxel's background logit by w_i ([y_i = 0] - p_i(0)): up if foreground is predicted as too
    likely, down if background is. If the two sides balance, the sum over voxels is 0.

    Returns:
        sum_i w_i ([y_i = 0] - p_i(0)), and sum_i w_i (1 - p_i(y_i)).
    """
    probs = logits.float().softmax(1).double()
    weight = torch.ones(target.shape).double() if weight is None else weight.double()
    net = weight * ((target == 0).double() - probs[:, 0])
    return float(net.sum()), float((weight * (1 - probs.gather(1, target[:, None])[:, 0])).sum())


def parameter_gradient(loss: Tensor, network: nn.Module) -> Tensor:
    """Returns the loss's gradient in all of the network's parameters as one vector; the graph is kept."""
    parameters = [value for value in network.parameters() if value.requires_grad]
    found = torch.autograd.grad(loss, parameters, retain_graph=True)
    return torch.cat([value.flatten() for value in found])


def cosine(first: Tensor, second: Tensor) -> float:
    """Returns the cosine of the angle between two vectors."""
    return float(nnf.cosine_similarity(first.double(), second.double(), dim=0))


def correlation_in_class(first: Tensor, second: Tensor, classes: Tensor) -> float:
    """Returns the mean of Spearman's correlations inside the classes whose values vary; NaN if there are none.

    Args:
        first: (N,) values.
        second: (N,) other values of the same voxels.
        classes: (N,) their classes.
    """
    found = []
    for index in classes.unique().tolist():
        chosen = classes == index
        ranks = [rankdata(values[chosen].numpy()) for values in (first, second)]
        if all(np.ptp(values) > 0 for values in ranks):
            found.append(np.corrcoef(*ranks)[0, 1])
    return float(np.mean(found)) if found else float("nan")
