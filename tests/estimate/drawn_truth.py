"""Predictions whose truth is drawn from their probabilities."""

import numpy as np
from scipy.special import expit


def drawn(seed, share=1.0, size=(60, 50, 40)):
    """Two classes; the truth is drawn from the probabilities after their logit was multiplied by ``share``."""
    rng = np.random.default_rng(seed)
    logits = np.clip(rng.normal(-4, 4, size), -13, 13)
    foreground = expit(logits)
    truth = (rng.uniform(size=size) < expit(share * logits)).astype(np.uint8)
    return np.stack([1 - foreground, foreground]).astype(np.float32), truth


def dice_of(probabilities, truth):
    found = probabilities.argmax(0) == 1
    return 2 * (found & (truth == 1)).sum() / (found.sum() + (truth == 1).sum())
