"""What does not fit is an error before any file is made."""

import logging

import keras
import numpy as np
import pytest
from keras import layers

from keras_mot import analysis, compress
from keras_mot.export import LiteRTRunner
from keras_mot.recipes import FineTune, PostTraining, QuantizeAware, Recipe, Tune
from tests.quantization.test_coverage import only_tensorflow

X = np.random.default_rng(0).standard_normal((40, 8)).astype("float32")
Y = X[:, :3].argmax(-1)


def network(*last, loss=None):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4, "relu"), *(last or [layers.Dense(3, "softmax")])])
    if loss is not None:
        model.compile("sgd", loss)
    return model


def check(tmp_path, message, error=ValueError, model=None, train=(X, Y), validation=None, recipe="int8", **settings):
    folder = tmp_path / "run"
    with pytest.raises(error, match=message):
        compress(model or network(), recipe, train, validation, output_dir=folder, progress=False, **settings)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("labels", "loss", "message"),
    [
        (np.array(["cat"] * 40), None, r"labels of `train_data` should be numbers; .*type <U3. Number the classes"),
        (np.array([None] * 40), None, "labels of `train_data` should be numbers"),
        (["cat"] * 40, None, r"received for y: \[an array of shape \(\) .*numpy.asarray"),
        (np.zeros((40, 2)), None, r"No loss can be inferred for labels of shape \(40, 2\)"),
        (np.full((40, 2), 0.5), "mse", r"labels have shape \(40, 2\), the outputs \(None, 3\): the loss .* needs"),
        (np.full((40, 1), 0.5), "mse", r"labels have shape \(40, 1\), the outputs \(None, 3\)"),
        (np.full(40, 0.5), keras.losses.Huber(), r"labels have shape \(40,\), the outputs \(None, 3\)"),
        (np.zeros((40, 5), int), "sparse_categorical_crossentropy", r"labels have shape \(40, 5\)"),
        (
            np.eye(3)[Y],
            "sparse_categorical_crossentropy",
            r"labels of shape \(40, 3\).*one-hot: give `loss='categorical_crossentropy'`",
        ),
        (Y, "categorical_crossentropy", r"labels of shape \(40,\).*give `loss='sparse_categorical_crossentropy'`"),
        (Y + np.inf, "mse", "The labels of `train_data` hold NaN or infinite values"),
        (Y, lambda y_true, y_pred: 1 / 0, "The loss cannot be computed .*division by zero"),
        (Y, lambda y_true, y_pred: keras.ops.mean(y_pred) * np.nan, "is nan .*a finite number is needed"),
    ],
    ids=range(13),
)
def test_labels_and_losses(labels, loss, message, tmp_path):
    check(tmp_path, message, train=(X, labels), loss=loss)
    if loss is not None:  # of a model that was compiled so, the same
        check(tmp_path, message, model=network(loss=loss), train=(X, labels))


@pytest.mark.parametrize(
    "labels", [X[:, 0] > 0, X[:, :1] > 0, (X[:, 0] > 0).astype("float32")], ids=["n", "n1", "float"]
)
@pytest.mark.parametrize("last", [layers.Dense, lambda units: layers.Reshape(())], ids=["outputs n1", "outputs n"])
def test_labels_of_one_column_or_none_are_the_same(labels, last, tmp_path):
    """They get as far as the seed, which is looked at first and last alike: as nothing else is wrong."""
    model = network(layers.Dense(1), last(1))
    check(tmp_path, "`metric` 'wrong' cannot be computed", model=model, train=(X, labels), metric=wrong)


def wrong(y_true, y_pred):
    raise RuntimeError("as it was meant to")


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (lambda y_true, y_pred: None, "should return a single number; received None"),
        (lambda y_true, y_pred: "good", "should return a single number; received 'good'"),
        (lambda y_true, y_pred: np.nan, "is nan for the model as it is: a finite number is needed"),
        (wrong, "`metric` 'wrong' cannot be computed from labels .*: as it was meant to"),
        ("f1score", "Did you mean 'f1_score'"),
        (X, r"received an array of shape \(40, 8\) and type float32"),
        ("mae", r"`metric` 'mae' cannot be computed from labels of shape \(40,\) and predictions of shape \(40, 3\)"),
    ],
    ids=range(7),
)
def test_metrics(metric, message, tmp_path):
    check(tmp_path, message, metric=metric)


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        ((X[:, :5], Y), r"`validation_data` does not fit the model.*\(None, 8\).*received \[\(40, 5\)\]"),
        ((X, Y + 5), "`validation_data`: The labels go from 5 to 7; the model has 3 outputs"),
        ((X, np.zeros((40, 2))), r"`validation_data`: the labels have shape \(40, 2\)"),
        ((X, np.array(["cat"] * 40)), "labels of `validation_data` should be numbers"),
        ((X * np.inf, Y), "samples of `validation_data` hold NaN or infinite values"),
        ([(X, Y), (X[:, :5], Y)], r"cannot be called on batch 1 \(counted from 0\) of .*inputs of shape \(40, 5\)"),
    ],
    ids=range(6),
)
def test_validation_data(validation, message, tmp_path):
    check(tmp_path, message, validation=validation)


@pytest.mark.parametrize("seed", [2**40, 2**32, -1, 1.0, True])
def test_seeds(seed, tmp_path):
    check(tmp_path, r"`seed` should be an integer from 0 to 2\*\*32 - 1", seed=seed)


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_weights_that_are_not_finite(value, tmp_path):
    model = network()
    model.layers[0].bias.assign(np.full(4, value))
    check(tmp_path, r"Weight '.*bias' holds 4 NaN or infinite values", model=model)


def test_what_can_be_gone_through_once(tmp_path):
    tf = pytest.importorskip("tensorflow")
    batches = iter([(X, Y)] * 3)
    types = tf.TensorSpec((None, 8)), tf.TensorSpec((None,), "int64")
    once = tf.data.Dataset.from_generator(lambda: batches, output_signature=types)
    check(tmp_path, "`train_data` can be gone through once only", train=once)
    check(tmp_path, "`validation_data` is a generator", error=TypeError, validation=iter([(X, Y)]))


def test_forms_of_data_that_do_not_fit(tmp_path):
    weighted = (X, Y, np.ones(40, "float32"))
    check(tmp_path, "`train_data` should be a tuple .*Weights of samples are not taken", train=weighted)
    samples = list(zip(X, Y, strict=True))
    check(tmp_path, "labels of `train_data` have no dimension for the batch", train=samples)
    check(tmp_path, "`recipe` should be .*`Recipe\\(\\[...\\]\\)`", error=TypeError, recipe=[PostTraining()])


def test_a_later_batch_with_nan_is_named(tmp_path):
    spoilt = [(X, Y), (X * np.nan, Y)]
    recipe = Recipe([Tune(FineTune(1))])
    with pytest.raises(
        FloatingPointError, match=r"Training diverged: .*Batch 1 of `train_data` \(counted from 0\) holds NaN"
    ):
        compress(network(), recipe, spoilt, (X, Y), output_dir=tmp_path, progress=False, latency_runs=0)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (lambda: PostTraining(input_type="int4"), r"`input_type` should be one of \('float32', 'int8', 'uint8'\)"),
        (lambda: QuantizeAware(output_type="int16"), "`output_type` should be one of .*activations of 8 bits"),
        (lambda: PostTraining(activation_bits=16, input_type="int8"), r"one of \('float32', 'int16'\)"),
    ],
)
def test_types_of_files(stage, message):
    with pytest.raises(ValueError, match=message):
        stage()


@keras.saving.register_keras_serializable("tests")
class Sine(layers.Layer):
    """Has no integer kernel."""

    def call(self, x):
        return keras.ops.sin(x)


@only_tensorflow
def test_what_stays_in_floats_is_refused_before_any_training(tmp_path):
    model = network(Sine(), layers.Dense(3, "softmax"))
    short = FineTune(1, batch_size=16)
    recipe = Recipe([Tune(short), QuantizeAware(strict=True, fine_tune=short)])
    check(tmp_path, r"Stage 2, 'quantize_aware': `strict=True`, but not all", model=model, recipe=recipe)


@only_tensorflow
def test_types_hold_for_later_stages(tmp_path):
    short = FineTune(1, batch_size=16)
    recipe = Recipe([QuantizeAware(input_type="uint8", output_type="int8", fine_tune=short), Tune(short)])
    found = compress(network(), recipe, (X, Y), output_dir=tmp_path, progress=False, latency_runs=1)
    for stage in found.stages[1:]:
        runner = LiteRTRunner(stage.artifact)
        assert [tensor.dtype for tensor in (*runner.inputs, *runner.outputs)] == ["uint8", "int8"]
        assert stage.keras_metric == pytest.approx(stage.metric, abs=0.03)


@pytest.mark.parametrize("function", [compress, analysis.measure])
def test_no_warnings_of_retracing(function, caplog, monkeypatch):
    """TensorFlow counts the functions of all models as one; what else it logs stays, and so does the user's logger."""
    logger = logging.getLogger("tensorflow")
    monkeypatch.setattr(logger, "propagate", True)
    filters = list(logger.filters)

    def metric(y_true, y_pred):
        logger.warning("5 out of the last 5 calls to %s triggered tf.function retracing. Tracing is expensive", "f")
        logger.warning("something else")
        raise RuntimeError("enough is seen")

    arguments = {"data": (X, Y)} if function is analysis.measure else {"recipe": "int8", "train_data": (X, Y)}
    with caplog.at_level(logging.WARNING, "tensorflow"):
        with pytest.raises(ValueError, match="enough is seen"):
            function(network(), metric=metric, progress=False, **arguments)
        assert [record.getMessage() for record in caplog.records] == ["something else"]
        logger.warning("this triggered tf.function retracing, outside")
    assert len(caplog.records) == 2
    assert logger.filters == filters


def test_accuracy_of_numbers_is_refused():
    from keras_mot.recipes._checks import check_accuracy

    check_accuracy("accuracy", {None: "classes"})
    check_accuracy({"kind": "accuracy", "price": "mae"}, {"kind": "classes", "price": "numbers"})
    check_accuracy(None, {"price": "numbers"})
    for metric, kinds in (
        ("accuracy", {None: "numbers"}),
        ("acc", {"kind": "classes", "price": "numbers"}),
        ({"price": "accuracy"}, {"kind": "classes", "price": "numbers"}),
    ):
        with pytest.raises(ValueError, match="are numbers, and no classes"):
            check_accuracy(metric, kinds)
