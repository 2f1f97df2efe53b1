"""Whether outputs are probabilities, judged by their values: so it holds whatever computes the last activation."""

import numpy as np


def within_zero_and_one(scores: np.ndarray) -> bool:
    """Whether all scores lie from 0 to 1."""
    return bool(scores.min() >= 0.0 and scores.max() <= 1.0)


def are_probabilities(outputs: np.ndarray, exclusive: bool = False) -> bool:
    """Whether outputs are probabilities and no logits.

    Args:
        outputs: array of shape (samples, ..., classes), or of one score each.
        exclusive: whether a sample has one of several classes, so that probabilities sum to 1; else each class has one
            of its own, above 0 as a sigmoid's.
    """
    if not within_zero_and_one(outputs):
        return False
    if np.allclose(outputs.sum(-1), 1.0, atol=1e-2):
        return True
    single = outputs.ndim == 1 or outputs.shape[-1] == 1
    return not exclusive and (single or bool((outputs > 0).all()))
