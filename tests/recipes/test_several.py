"""Recipes for models of several inputs and outputs."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_mot import compress
from keras_mot.data.arrangement import input_arrangement, with_outputs
from keras_mot.data.inputs import labelled_batches
from keras_mot.export.litert.runner import LiteRTRunner
from keras_mot.recipes import FineTune, PostTraining, Prune, QuantizeAware, Recipe, Tune
from keras_mot.recipes._objectives import choose_objectives
from keras_mot.recipes.fine_tuning import train
from keras_mot.recipes.training_data import TrainingData
from tests.quantization.test_coverage import only_tensorflow

SHORT = FineTune(1, 1e-3, batch_size=16)
NAMES = ["kind", "age"]


def network(dictionaries):
    """Inputs, of different shapes, and outputs are not in the order of the alphabet."""
    first, second = keras.Input((4,), name="z"), keras.Input((3,), name="a")
    hidden = layers.Dense(16, "relu", name="hidden")(layers.Concatenate()([first, second]))
    kind = layers.Dense(3, activation="softmax", name="kind")(hidden)
    age = layers.Dense(1, name="age")(hidden)
    if dictionaries:
        return keras.Model({"z": first, "a": second}, {"kind": kind, "age": age})
    return keras.Model([first, second], [kind, age])


@pytest.fixture(scope="module")
def data():
    generator = np.random.default_rng(0)
    z, a = (generator.standard_normal((96, width)).astype("float32") for width in (4, 3))
    kind = np.stack([z[:, 0], a[:, 1], z[:, 1]], 1).argmax(-1)
    return {"z": z, "a": a}, {"kind": kind, "age": z[:, 2] + a[:, 2]}


@pytest.fixture(scope="module")
def weights(data):
    """Of a trained network; those of both forms are the same."""
    keras.utils.set_random_seed(0)
    model = network(dictionaries=False)
    x, y = data
    model.compile(keras.optimizers.Adam(0.02), ["sparse_categorical_crossentropy", "mse"])
    model.fit([x["z"], x["a"]], [y["kind"], y["age"]], epochs=30, batch_size=16, verbose=0)
    return {layer.name: layer.get_weights() for layer in model.layers}


def trained(weights, dictionaries):
    model = network(dictionaries)
    for layer in model.layers:
        layer.set_weights(weights[layer.name]) if layer.name in weights and layer.weights else None
    return model


def run(model, recipe, *given, **settings):
    return compress(model, recipe, *given, **{"latency_runs": 0, "progress": False, **settings})


def test_lists(data, weights, tmp_path):
    model = trained(weights, dictionaries=False)
    x, y = data
    recipe = Recipe([Tune(SHORT), PostTraining(input_type="int8", output_type="int8", strict=True)])
    result = run(model, recipe, ((x["z"], x["a"]), y), output_dir=tmp_path)
    kind, age = (np.asarray(each) for each in model.predict([x["z"], x["a"]], verbose=0))
    plain, tuned, quantized = result.stages
    assert plain.metrics["kind"] == np.mean(kind.argmax(-1) == y["kind"]) > 0.9
    assert plain.metrics["age"] == pytest.approx(np.mean((age[:, 0] - y["age"]) ** 2), rel=1e-3)
    assert (result.metric_name, plain.metric) == ("accuracy of 'kind'", plain.metrics["kind"])
    assert list(quantized.metrics) == NAMES
    assert quantized.metrics["kind"] == pytest.approx(tuned.metrics["kind"], abs=0.05)
    assert quantized.metrics["age"] < plain.metrics["age"] + 0.05
    assert quantized.keras_metric == pytest.approx(quantized.metric, abs=0.03)
    runner = LiteRTRunner(result.artifact)
    assert {tensor.dtype for tensor in (*runner.inputs, *runner.outputs)} == {"int8"}
    assert "'age'" in str(result)
    assert "'age'" in result.to_markdown()


@only_tensorflow
def test_dictionaries(data, weights):
    model = trained(weights, dictionaries=True)
    x, y = data
    shuffled = ({"a": x["a"], "z": x["z"]}, {"age": y["age"], "kind": y["kind"]})
    recipe = Recipe([Prune(0.25, fine_tune=SHORT), QuantizeAware(fine_tune=SHORT)])
    losses = {"kind": "sparse_categorical_crossentropy", "age": "mean_absolute_error"}
    result = run(model, recipe, shuffled, metric={"kind": "accuracy"}, loss=losses)
    assert result.metric_name == "accuracy of 'kind'"
    assert list(result.stages[-1].metrics) == ["kind"]
    assert all(stage.metric > 0.85 for stage in result.stages)
    assert set(result.model.output) == set(NAMES)


@only_tensorflow
def test_functions_get_dictionaries_with_the_names_of_the_model(data, weights):
    x, y = data
    seen = []

    def metric(y_true, y_pred):
        seen.append((set(y_true), list(y_pred)))
        return float(np.mean(y_pred["kind"].argmax(-1) == y_true["kind"]))

    result = run(trained(weights, False), Recipe([PostTraining()]), ([x["z"], x["a"]], y), metric=metric)
    assert all(each == ({"kind", "age"}, NAMES) for each in seen)
    assert len(seen) >= 4  # the model and the file, of both stages, whose outputs have other names
    assert result.stages[-1].metric > 0.9


def as_sequence(batches):
    return batches


def as_dataset(batches):
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return len(batches)

        def __getitem__(self, index):
            return batches[index]

    return Batches()


def as_tensorflow(batches):
    tf = pytest.importorskip("tensorflow")
    joined = [
        {name: np.concatenate([batch[side][name] for batch in batches]) for name in batches[0][side]} for side in (0, 1)
    ]
    return tf.data.Dataset.from_tensor_slices(tuple(joined)).batch(16)


def as_torch(batches):
    torch = pytest.importorskip("torch")
    samples = [
        tuple({name: array[place] for name, array in side.items()} for side in batch)
        for batch in batches
        for place in range(16)
    ]
    return torch.utils.data.DataLoader(samples, batch_size=16)


@pytest.mark.parametrize("kind", [as_sequence, as_dataset, as_tensorflow, as_torch])
def test_batches_are_brought_into_the_order_of_the_model(kind, data, weights):
    """Dictionaries of the original names, for a model of lists."""
    model = trained(weights, dictionaries=False)
    x, y = data
    batches = [
        tuple({name: array[start : start + 16] for name, array in side.items()} for side in data)
        for start in range(0, 96, 16)
    ]
    arrangement = input_arrangement(model)
    outputs = model([x["z"], x["a"]])
    given = TrainingData(kind(batches), None).arranged(with_outputs(arrangement, model, outputs))
    (z, a), (classes, ages) = given.head(200)
    np.testing.assert_array_equal(z, x["z"][:16])
    np.testing.assert_array_equal(a, x["a"][:16])
    np.testing.assert_array_equal(classes, y["kind"][:16])
    np.testing.assert_allclose(ages, y["age"][:16], rtol=1e-6)
    assert given.steps(16) == 6
    named = dict(zip(NAMES, map(keras.ops.convert_to_numpy, outputs), strict=True))
    objective = choose_objectives(model, None, given.labels(), named)
    logs = train(model, SHORT, given, objective)
    assert logs["loss"] < 0.6


def objective(model, losses=None, labels=None, metric=None):
    labels = [np.array([0, 1, 2]), np.array([0.5, 1.5, 2.0])] if labels is None else labels
    outputs = {"kind": np.eye(3, dtype="float32"), "age": np.ones((3, 1), "float32")}
    return choose_objectives(model, losses, labels, outputs, metric)


def test_losses_are_inferred_for_each_output():
    chosen = objective(network(False))
    assert chosen.description == (
        "losses: sparse_categorical_crossentropy, inferred from labels (classes) and output for 'kind', "
        "mean_squared_error, inferred from labels (numbers) and output for 'age'"
    )
    assert len(chosen.loss) == 2
    assert chosen.kinds == {"kind": "classes", "age": "numbers"}
    assert chosen.metric["kind"] == "accuracy"


def test_losses_that_are_given_or_saved():
    assert objective(network(False), {"age": "mae"}).loss[1] is keras.losses.get("mae")
    assert objective(network(False), [None, keras.losses.Huber()]).loss[1].name == "huber_loss"
    saved = network(False)
    saved.compile(
        "sgd",
        {"age": "mae", "kind": "sparse_categorical_crossentropy"},
        loss_weights={"kind": 2.0, "age": 0.5},
    )
    chosen = objective(saved)
    assert (chosen.loss, chosen.loss_weights) == (["sparse_categorical_crossentropy", "mae"], [2.0, 0.5])
    labels = {"kind": np.array([0, 1, 2]), "age": np.array([0.5, 1.5, 2.0])}
    assert set(objective(network(True), labels=labels).loss) == set(NAMES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"losses": {"agee": "mae"}}, r"`loss` names the outputs \['agee'\].*Did you mean 'age'\?"),
        ({"losses": ["mae"]}, r"`loss` has 1 items; the model has the outputs \['kind', 'age'\]"),
        ({"metric": {"kin": "accuracy"}}, r"`metric` names the outputs \['kin'\]"),
        ({"labels": [np.array([0, 1, 7]), np.zeros(3)]}, "Output 'kind': The labels go from 0 to 7"),
        ({"labels": [np.array([0, 1, 2]), np.zeros((3, 2))], "losses": "mse"}, "Output 'age': The labels have shape"),
    ],
)
def test_what_does_not_fit_the_outputs(change, message):
    with pytest.raises(ValueError, match=message):
        objective(network(False), **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": lambda x: x["z"]}, r"2 inputs: the inputs of `train_data` should be a list.*\['z', 'a'\]"),
        (
            {"x": lambda x: [x["a"], x["z"]]},
            r"Expected arrays of shapes \[\(None, 4\), .*received \[\(96, 3\)",
        ),
        ({"x": lambda x: {"z": x["z"], "b": x["a"]}}, r"a dictionary of these names; received \{'b': an array"),
        ({"y": lambda y: y["kind"]}, r"2 outputs: the labels of `train_data` should be a list.*\['kind', 'age'\]"),
        ({"y": lambda y: {"kind": y["kind"]}}, "2 outputs: the labels of `train_data`"),
        ({"recipe": "accuracy"}, r"`distillation` is for models of one output; this one has \['kind', 'age'\]"),
        ({"metric": "auc"}, "`metric` 'auc' cannot be computed"),
    ],
)
def test_refusals_before_any_work(change, message, data, weights, tmp_path):
    x, y = data
    given = (change.get("x", dict)(x), change.get("y", dict)(y))
    settings = {"metric": change["metric"]} if "metric" in change else {}
    with pytest.raises(ValueError, match=message):
        run(trained(weights, False), change.get("recipe", "int8"), given, output_dir=tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_one_output_in_a_dictionary(data):
    """What is named after the only input or output is taken for it."""
    model = keras.Sequential([keras.Input((4,), name="z"), layers.Dense(3, name="kind")])
    x, y = data
    arrangement = with_outputs(input_arrangement(model), model, model(x["z"]))
    given = TrainingData(({"z": x["z"]}, {"kind": y["kind"]}), None).arranged(arrangement)
    assert given.train[0] is x["z"]
    assert given.train[1] is y["kind"]


def test_a_model_of_one_input_in_a_list_takes_labels_for_its_calibration():
    given = keras.Input((3,))
    model = keras.Model([given], keras.layers.Dense(2)(given))  # its own form is a list of one
    x, y = np.arange(30.0, dtype="float32").reshape(10, 3), np.arange(10)
    count, batches = labelled_batches(model, ([x], y), 4, "calibration_data")
    inputs, labels = zip(*batches, strict=True)
    assert count == 3
    np.testing.assert_array_equal(np.concatenate(labels), y)
    np.testing.assert_array_equal(np.concatenate([each[0] for each in inputs]), x)
