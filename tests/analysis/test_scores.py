"""Metrics by short names, against scikit-learn and numbers by hand; and which way a metric is better."""

import keras
import numpy as np
import pytest

from keras_mot.analysis import measure
from keras_mot.analysis.metrics import make_metric
from keras_mot.analysis.probabilities import are_probabilities


def value_of(metric, *batches):
    accumulator = make_metric(metric).start()
    for y_true, y_pred in batches:
        accumulator.add(y_true, y_pred)
    return accumulator.result()


CLASSES = np.array([0, 1, 2, 2, 1, 0])
SCORES = np.array(
    [[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.1, 0.1, 0.8], [0.2, 0.5, 0.3], [0.1, 0.6, 0.3], [0.3, 0.4, 0.3]], "float32"
)
YES = np.array([0, 0, 1, 1, 1])
CHANCES = np.array([[0.1], [0.4], [0.35], [0.8], [0.7]], "float32")


def test_yes_or_no_by_hand():
    """Above 0.5 are the last two, which are right; one of three is missed."""
    assert value_of("precision", (YES, CHANCES)) == 1.0
    assert value_of("recall", (YES, CHANCES)) == pytest.approx(2 / 3)
    assert value_of("f1", (YES, CHANCES)) == pytest.approx(0.8)
    assert value_of("auc", (YES, CHANCES)) == pytest.approx(5 / 6)  # one of six pairs is the wrong way round
    logits = np.log(CHANCES / (1 - CHANCES))
    assert value_of("f1", (YES, logits)) == pytest.approx(0.8)
    assert value_of("auc", (YES[:, None], logits[:, 0])) == pytest.approx(5 / 6)


def test_classes_by_hand():
    """Given 0, 0, 2, 1, 1, 1 for 0, 1, 2, 2, 1, 0."""
    assert value_of("precision", (CLASSES, SCORES)) == pytest.approx((1 / 2 + 1 / 3 + 1) / 3)
    assert value_of("recall", (CLASSES, SCORES)) == pytest.approx(1 / 2)
    assert value_of("top2", (CLASSES, SCORES)) == 1.0 == value_of("top_2", (CLASSES, SCORES))
    assert value_of("accuracy", (CLASSES, SCORES)) == 0.5 == value_of("acc", (CLASSES, SCORES))
    one_hot = np.eye(3)[CLASSES]
    for name in ("precision", "recall", "f1", "auc", "top2"):
        assert value_of(name, (one_hot, SCORES)) == value_of(name, (CLASSES[:, None], SCORES))


def test_numbers_by_hand():
    y_true, y_pred = np.array([1.0, 2.0, 6.0]), np.array([[1.5], [2.0], [4.0]])
    batches = (y_true[:2], y_pred[:2]), (y_true[2:], y_pred[2:])
    assert value_of("mae", *batches) == pytest.approx(2.5 / 3)
    assert value_of("mse", *batches) == pytest.approx(4.25 / 3)
    assert value_of("rmse", *batches) == pytest.approx((4.25 / 3) ** 0.5)
    assert value_of("r2", *batches) == pytest.approx(1 - 4.25 / 14)


@pytest.mark.parametrize("classes", [2, 5])
def test_as_scikit_learn(classes):
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(classes)
    logits = np.round(generator.standard_normal((300, classes)), 1)  # with ties
    labels = generator.integers(0, classes, 300)
    logits[np.arange(300), labels] += 0.5
    chances = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    for name, function in (("f1", "f1_score"), ("precision", "precision_score"), ("recall", "recall_score")):
        expected = getattr(metrics, function)(labels, chances.argmax(-1), average="macro")
        assert value_of(name, (labels, chances)) == pytest.approx(expected)
    areas = [metrics.roc_auc_score(labels == column, chances[:, column]) for column in range(classes)]
    assert value_of("auc", (labels, chances)) == pytest.approx(np.mean(areas))
    fine = generator.standard_normal((300, classes))  # without ties, which rounding may break
    probabilities = np.exp(fine) / np.exp(fine).sum(-1, keepdims=True)
    assert value_of("auc", (labels, fine)) == pytest.approx(value_of("auc", (labels, probabilities)))
    several = generator.integers(0, 2, (300, classes))
    expected = metrics.f1_score(several, chances > 0.5, average="macro", zero_division=0)
    assert value_of("f1", (several, chances)) == pytest.approx(expected)


def test_labels_in_sequences():
    assert value_of("recall", (CLASSES.reshape(2, 3), SCORES.reshape(2, 3, 3))) == pytest.approx(1 / 2)


@pytest.mark.parametrize(
    ("metric", "y_true", "y_pred", "message"),
    [
        ("auc", np.zeros(5, int), CHANCES, "'auc' needs samples of both classes"),
        ("top5", CLASSES, SCORES, r"'top5' is for models that choose one of more than 5 classes"),
        ("f1", CLASSES[:5], CHANCES, "labels should be 0 or 1"),
        ("f1", CLASSES + 1, SCORES, "labels should be classes from 0 to 2"),
        ("recall", np.zeros((6, 2)), SCORES, r"labels of shape \(6, 2\) and predictions of shape \(6, 3\)"),
        ("mae", CLASSES, SCORES, r"labels of shape \(6,\) and predictions of shape \(6, 3\)"),
        ("r2", np.ones(5), CHANCES, "'r2' needs labels that differ"),
        ("accuracy", np.array(list("abcabc")), SCORES, "needs labels that are numbers.*numpy.unique"),
        ("f1", np.array(list("abcabc")), SCORES, "needs labels that are numbers"),
        (lambda y_true, y_pred: None, CLASSES, SCORES, "should return a single number; received None"),
        (lambda y_true, y_pred: "good", CLASSES, SCORES, "should return a single number; received 'good'"),
        (lambda y_true, y_pred: y_pred, CLASSES, SCORES, r"received an array of shape \(6, 3\)"),
        (lambda y_true, y_pred: 1 / 0, CLASSES, SCORES, r"predictions of shape \(6, 3\): division by zero"),
    ],
)
def test_what_cannot_be_computed(metric, y_true, y_pred, message):
    with pytest.raises(ValueError, match=message):
        value_of(metric, (y_true, y_pred))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("f1score", "f1_score"),
        ("acuracy", "accuracy"),
        ("root_mean_squared", "root_mean_squared_error"),
        ("MA", "mae"),
    ],
)
def test_a_name_that_is_none(name, meant):
    with pytest.raises(ValueError, match=rf"short name such as 'f1'.*received '{name}'. Did you mean .*'{meant}'"):
        make_metric(name)


def test_the_class_of_a_metric_is_none():
    with pytest.raises(ValueError, match=r"received <class '.*AUC'>"):
        make_metric(keras.metrics.AUC)


def own(y_true, y_pred):
    return 1.0


def own_error(y_true, y_pred):
    return 1.0


def cost(y_true, y_pred):
    return 1.0


cost.greater_is_better = False


@pytest.mark.parametrize(
    "metric",
    ["accuracy", "f1", "auc", "top5", "r2", "cosine_similarity", "r2_score", keras.metrics.AUC(), own, "f1_score"],
)
def test_more_is_better(metric):
    assert make_metric(metric).greater_is_better


@pytest.mark.parametrize(
    "metric",
    ["mae", "rmse", "mean_squared_error", "kl_divergence", "huber", "hinge", "categorical_crossentropy"]
    + [keras.metrics.MeanSquaredError(name="goodness"), keras.metrics.FalseNegatives(), own_error, cost],
)
def test_less_is_better(metric):
    assert not make_metric(metric).greater_is_better


OUTPUTS = {"kind": SCORES, "age": np.arange(6.0)[:, None]}
LABELS = {"kind": CLASSES, "age": np.arange(6.0) + 0.5}


def test_a_metric_for_each_output():
    resolved = make_metric({"kind": "accuracy", "age": "mae"})
    accumulator = resolved.start()
    accumulator.add(LABELS, OUTPUTS)
    assert accumulator.parts() == {"kind": 0.5, "age": 0.5}
    assert (accumulator.result(), resolved.name) == (0.5, "accuracy of 'kind'")
    assert resolved.directions == {"kind": True, "age": False}
    assert resolved.names == {"kind": "accuracy", "age": "mae"}
    assert value_of({"age": "mse"}, ([CLASSES, LABELS["age"]], OUTPUTS)) == 0.25
    assert value_of("mae", (LABELS | {"kind": SCORES}, OUTPUTS)) == 0.25  # the mean of 0 and 0.5
    two = {"a": SCORES, "b": SCORES}
    assert value_of({"a": "accuracy", "b": "accuracy"}, ([CLASSES, SCORES.argmax(-1)], two)) == 0.75
    assert make_metric({"a": "accuracy", "b": "accuracy"}).name == "accuracy"


@pytest.mark.parametrize(
    ("metric", "labels", "outputs", "message"),
    [
        ({"kin": "accuracy"}, LABELS, OUTPUTS, r"names the outputs \['kin'\]; the model has \['kind', 'age'\]"),
        ({"kind": "accuracy"}, CLASSES, SCORES, "the model has one: give one metric"),
        ("accuracy", {"kind": CLASSES}, OUTPUTS, r"has the outputs \['kind', 'age'\]: the labels should be a list"),
        ("accuracy", [CLASSES], OUTPUTS, "the labels should be a list of an array for each"),
        ({}, CLASSES, SCORES, "`metric` should be"),
    ],
)
def test_outputs_that_do_not_fit(metric, labels, outputs, message):
    with pytest.raises(ValueError, match=message):
        value_of(metric, (labels, outputs))


def test_models_of_several_outputs_are_measured():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,), name="features")
    first = keras.layers.Dense(2, activation="softmax", name="kind")(inputs)
    second = keras.layers.Dense(1, name="age")(inputs)
    model = keras.Model(inputs, [first, second], name="both")
    x = np.random.default_rng(0).standard_normal((20, 3)).astype("float32")
    kind, age = (np.asarray(each) for each in model.predict(x, verbose=0))
    labels = [kind.argmax(-1), age + 0.5]
    report = measure(model, data=(x, labels), metric={"kind": "accuracy", "age": "mae"}, progress=False)
    assert report["both"].metric == 1.0
    assert report["both"].metrics == {"kind": 1.0, "age": pytest.approx(0.5)}
    assert "'age'" in str(report)
    assert report.to_dict()["measurements"][0]["metrics"]["kind"] == 1.0


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ([[0.2, 0.8], [0.5, 0.5]], (True, True)),
        ([[0.9, 0.8], [0.1, 0.5]], (True, False)),  # a sigmoid for each class
        ([[0.0, 0.8], [1.0, 0.5]], (False, False)),
        ([[0.7], [0.1]], (True, False)),
        ([0.7, 0.1], (True, False)),
        ([[1.2, -0.2], [0.5, 0.5]], (False, False)),
    ],
)
def test_probabilities(outputs, expected):
    outputs = np.array(outputs, "float32")
    assert (are_probabilities(outputs), are_probabilities(outputs, exclusive=True)) == expected
