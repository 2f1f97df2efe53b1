"""Metrics over all samples, in NumPy: of classifiers by decision and by rank, and of regressions."""

import numpy as np

from keras_mot.analysis.probabilities import are_probabilities, within_zero_and_one


def f1(y_true, y_pred):
    """Harmonic mean of precision and recall; the mean over classes, as scikit-learn's `average="macro"`."""
    right, chosen, there = _counts(y_true, y_pred)
    return float(_ratio(2 * right, chosen + there).mean())


def precision(y_true, y_pred):
    """Share of right ones among the samples that are given a class; the mean over classes."""
    right, chosen, _ = _counts(y_true, y_pred)
    return float(_ratio(right, chosen).mean())


def recall(y_true, y_pred):
    """Share of the samples of a class that are found; the mean over classes."""
    right, _, there = _counts(y_true, y_pred)
    return float(_ratio(right, there).mean())


def auc(y_true, y_pred):
    """Area under the ROC curve, exactly, of each class against the others; the mean over classes.

    It is the chance that a sample of the class has a higher score than one of the others (Hanley and McNeil, 1982, "The
    meaning and use of the area under a receiver operating characteristic (ROC) curve"). Scores of several classes that
    are no probabilities are taken for logits.
    """
    truth, scores, kind = _truth_and_scores(y_true, y_pred)
    if kind == "classes" and not are_probabilities(scores, exclusive=True):
        exponentials = np.exp(scores - scores.max(-1, keepdims=True))
        scores = exponentials / exponentials.sum(-1, keepdims=True)
    areas = [_area(truth[:, column], scores[:, column]) for column in range(truth.shape[1])]
    areas = [area for area in areas if area is not None]
    if not areas:
        raise ValueError("'auc' needs samples of both classes; all labels here are the same.")
    return float(np.mean(areas))


def top_k(k):
    """The share of samples whose class is among the `k` highest scores."""

    def metric(y_true, y_pred):
        truth, scores, kind = _truth_and_scores(y_true, y_pred)
        if kind != "classes" or scores.shape[1] <= k:
            raise ValueError(
                f"'top{k}' is for models that choose one of more than {k} classes; the predictions have shape "
                f"{y_pred.shape}, the labels {y_true.shape}."
            )
        return float(((scores > scores[truth][:, None]).sum(-1) < k).mean())

    return metric


def mae(y_true, y_pred):
    """Mean absolute error."""
    return float(np.abs(_difference(y_true, y_pred)).mean())


def mse(y_true, y_pred):
    """Mean squared error."""
    return float(np.square(_difference(y_true, y_pred)).mean())


def rmse(y_true, y_pred):
    """Root of the mean squared error."""
    return float(np.sqrt(mse(y_true, y_pred)))


def r2(y_true, y_pred):
    """Coefficient of determination, over all values: 1 - squared error / variance of the labels."""
    difference = _difference(y_true, y_pred)
    truth = np.asarray(y_true, "float64")
    spread = np.square(truth - truth.mean()).sum()
    if not spread:
        raise ValueError("'r2' needs labels that differ; all labels here are the same.")
    return float(1.0 - np.square(difference).sum() / spread)


def _difference(y_true, y_pred):
    if _squeezed(y_true).shape != _squeezed(y_pred).shape:
        raise ValueError(f"the labels have shape {y_true.shape}, the predictions {y_pred.shape}.")
    return _squeezed(y_pred).astype("float64") - _squeezed(y_true).astype("float64")


def _squeezed(array):
    return array[..., 0] if array.ndim > 1 and array.shape[-1] == 1 else array


def _counts(y_true, y_pred):
    """Of each class: how many samples are rightly given it, how many are given it, and how many are of it."""
    truth, scores, kind = _truth_and_scores(y_true, y_pred)
    if kind == "classes":
        chosen = np.zeros(scores.shape, bool)
        chosen[np.arange(len(scores)), scores.argmax(-1)] = True
    else:
        chosen = scores > (0.5 if within_zero_and_one(scores) else 0.0)
    counts = [matrix.sum(0) for matrix in (truth & chosen, chosen, truth)]
    if kind == "classes":  # of a class that is nowhere, nothing can be said
        found = (counts[1] + counts[2]) > 0
        counts = [count[found] for count in counts]
    return counts


def _ratio(numerator, denominator):
    return np.divide(numerator, denominator, out=np.zeros(len(numerator)), where=denominator > 0)


def _truth_and_scores(y_true, y_pred):
    """Labels as booleans and scores as floats, both of shape (samples, classes), and what kind of labels they are.

    Returns:
        Both, and "yes or no" for one score, "classes" for one class of several, "labels" for any number of several.
    """
    if y_pred.ndim < 2 or y_pred.shape[-1] == 1:
        truth, scores = _squeezed(y_true), _squeezed(y_pred)
        _check_shapes(truth.shape == scores.shape, y_true, y_pred)
        _check_labels((truth == 0) | (truth == 1), "0 or 1")
        return truth.reshape(-1, 1) > 0.5, scores.reshape(-1, 1).astype("float64"), "yes or no"
    classes = y_pred.shape[-1]
    scores = y_pred.reshape(-1, classes).astype("float64")
    if y_true.shape == y_pred.shape:
        truth = y_true.reshape(-1, classes)
        _check_labels((truth == 0) | (truth == 1), "0 or 1")
        kind = "classes" if (truth.sum(-1) == 1).all() else "labels"
        return truth > 0.5, scores, kind
    truth = _squeezed(y_true) if y_true.ndim == y_pred.ndim else y_true
    _check_shapes(truth.shape == y_pred.shape[:-1], y_true, y_pred)
    _check_labels((truth >= 0) & (truth < classes) & (truth == np.round(truth)), f"classes from 0 to {classes - 1}")
    return np.arange(classes) == truth.reshape(-1, 1), scores, "classes"


def _check_shapes(fit, y_true, y_pred):
    if not fit:
        raise ValueError(f"the labels have shape {y_true.shape}, the predictions {y_pred.shape}.")


def _check_labels(right, expected):
    if not right.all():
        raise ValueError(f"the labels should be {expected}.")


def _area(truth, scores):
    """Area under the ROC curve by the sum of ranks, ties at the mean of theirs; `None` if one class is missing."""
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        return None
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return (ranks[truth].sum() - positives * (positives + 1) / 2) / (positives * negatives)
