import keras
import numpy as np
import pytest

from keras_mot.recipes.objective import choose_objective, kind_of_labels

PROBABILITIES = np.full((6, 4), 0.25, "float32")
LOGITS = np.array([[-2.0, 0.5, 3.0, 1.0]] * 6, "float32")
ONE_PROBABILITY = np.full((6, 1), 0.4, "float32")
CLASSES = np.array([0, 1, 2, 3, 0, 1])
BINARY = np.array([0, 1, 1, 0, 1, 0])
MULTI = np.array([[1, 1, 0, 0]] * 6)


@pytest.mark.parametrize(
    ("labels", "outputs", "kind"),
    [
        (CLASSES, PROBABILITIES, "classes"),
        (CLASSES[:, None], PROBABILITIES, "classes"),
        (CLASSES.astype("float32"), LOGITS, "classes"),
        (np.eye(4)[CLASSES], PROBABILITIES, "one-hot"),
        (MULTI, PROBABILITIES, "yes or no"),
        (BINARY, ONE_PROBABILITY, "yes or no"),
        (BINARY[:, None].astype(bool), ONE_PROBABILITY, "yes or no"),
        (CLASSES * 0.5, ONE_PROBABILITY, "numbers"),
        (np.random.default_rng(0).random((6, 4)), LOGITS, "numbers"),
        (np.zeros((6, 2, 3)), PROBABILITIES, None),
        (CLASSES * 0.5, PROBABILITIES, None),
        (np.tile(CLASSES[:, None], (1, 5)), np.zeros((6, 5, 4)), "classes"),
    ],
)
def test_kind_of_labels(labels, outputs, kind):
    assert kind_of_labels(labels, outputs) == kind


def test_labels_beyond_the_outputs():
    with pytest.raises(ValueError, match=r"labels go from 0 to 9; the model has 4 outputs"):
        kind_of_labels(np.arange(10) % 10, PROBABILITIES)


def _model(**arguments):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(4)])
    if arguments:
        model.compile("sgd", **arguments)
    return model


def test_the_loss_of_the_saved_model_comes_first():
    chosen = choose_objective(_model(loss="kl_divergence"), None, CLASSES, PROBABILITIES)
    assert chosen.loss == "kl_divergence"
    assert chosen.description == "loss: kl_divergence, from the saved model"
    assert chosen.metric == "accuracy"


def test_a_loss_that_is_asked_for_comes_before_it():
    chosen = choose_objective(_model(loss="mse"), "sparse_categorical_crossentropy", CLASSES, PROBABILITIES)
    assert chosen.description == "loss: sparse_categorical_crossentropy, as asked for"


def test_an_inferred_loss_says_why():
    chosen = choose_objective(_model(), None, CLASSES, PROBABILITIES)
    assert chosen.description == ("loss: sparse_categorical_crossentropy, inferred from labels (classes) and output")


@pytest.mark.parametrize(
    ("labels", "outputs"), [(CLASSES, LOGITS), (np.eye(4)[CLASSES], LOGITS), (BINARY, LOGITS[:, :1])]
)
def test_logits_are_recognised(labels, outputs):
    chosen = choose_objective(_model(), None, labels, outputs)
    assert chosen.description.endswith(", on logits")
    assert chosen.loss.get_config()["from_logits"] is True


def test_numbers_are_judged_by_the_squared_error():
    chosen = choose_objective(_model(), None, np.arange(6) / 7, ONE_PROBABILITY)
    assert chosen.loss is keras.losses.get("mean_squared_error")
    assert chosen.metric(np.array([1.0, 3.0]), np.array([[1.0], [1.0]])) == 2.0


@pytest.mark.parametrize(("outputs", "scale"), [(ONE_PROBABILITY, 1), (LOGITS[:, :1], 10)])
def test_yes_or_no_is_judged_at_the_right_threshold(outputs, scale):
    metric = choose_objective(_model(), None, BINARY, outputs).metric
    middle = 0.5 if scale == 1 else 0.0
    predictions = np.array([[middle - 0.1], [middle + 0.1], [middle + 0.1], [middle - 0.1]]) * [[1]]
    assert metric(np.array([0, 1, 1, 1]), predictions) == 0.75


def test_unknown_loss():
    with pytest.raises(ValueError, match="`loss` 'most_loss' is not the name of a Keras loss"):
        choose_objective(_model(), "most_loss", CLASSES, PROBABILITIES)


def test_nothing_to_infer_a_loss_from():
    with pytest.raises(ValueError, match=r"shape \(6, 2, 3\).*outputs of shape \(None, 4\).*`loss`"):
        choose_objective(_model(), None, np.zeros((6, 2, 3)), PROBABILITIES)
