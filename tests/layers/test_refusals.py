"""What Keras cannot do with transformed weights is refused before anything changes, with the way out."""

import keras
import numpy as np
import pytest

import keras_mot
from keras_mot.clustering import cluster_weights, clustering_report, strip_clustering
from keras_mot.sparsity import ConstantSparsity, prune_low_magnitude, pruning_report, strip_pruning, update_pruning_step


def network():
    return keras.Sequential([keras.Input((6,)), keras.layers.Dense(5), keras.layers.Dense(4)])


def pruned(model):
    model = prune_low_magnitude(model, ConstantSparsity(0.5), overrides={model.layers[0]: None})
    update_pruning_step(model, 0)
    return model


TECHNIQUES = [(pruned, strip_pruning), (lambda model: cluster_weights(model, 4), strip_clustering)]


@pytest.fixture(params=TECHNIQUES, ids=["pruned", "clustered"])
def technique(request):
    return request.param


def weights(model):
    return [value.copy() for value in model.get_weights()]


def unchanged(model, before):
    return all(np.array_equal(new, old) for new, old in zip(model.get_weights(), before, strict=True))


@pytest.mark.parametrize("name", ["m.weights.h5", "m.keras"])
def test_plain_weights_are_for_the_plain_model(technique, name, tmp_path):
    plain, model = network(), technique[0](network())
    plain.save(tmp_path / name) if name == "m.keras" else plain.save_weights(tmp_path / name)
    before = weights(model)
    with pytest.raises(ValueError, match="before `prune_low_magnitude`"):
        model.load_weights(tmp_path / name)
    assert unchanged(model, before)
    other = network()
    other.load_weights(tmp_path / name)  # the way out
    assert unchanged(other, plain.get_weights())


@pytest.mark.parametrize("name", ["m.weights.h5", "m.keras"])
def test_transformed_weights_are_for_the_transformed_model(technique, name, tmp_path):
    plain, model = network(), technique[0](network())
    model.save(tmp_path / name) if name == "m.keras" else model.save_weights(tmp_path / name)
    before = weights(plain)
    with pytest.raises(ValueError, match="strip the model before `save_weights`"):
        plain.load_weights(tmp_path / name)
    assert unchanged(plain, before)
    other = technique[0](network())
    other.load_weights(tmp_path / name)
    assert unchanged(other, model.get_weights())
    stripped = technique[1](model)
    stripped.save_weights(tmp_path / "stripped.weights.h5")
    plain.load_weights(tmp_path / "stripped.weights.h5")
    assert unchanged(plain, stripped.get_weights())


def test_a_file_of_another_technique_is_told_apart(tmp_path):
    prune_low_magnitude(network()).save_weights(tmp_path / "m.weights.h5")
    with pytest.raises(ValueError, match="pruned, clustered or quantized the same way"):
        cluster_weights(network(), 4).load_weights(tmp_path / "m.weights.h5")


def test_lora_and_quantization_of_keras(technique):
    x = np.random.default_rng(0).standard_normal((3, 6)).astype("float32")
    model = technique[0](network())
    before = weights(model)
    for call in (
        lambda: model.layers[-1].enable_lora(2),
        lambda: model.layers[-1].quantize("int8"),
        lambda: model.layers[-1].quantize("int8", type_check=False),
        lambda: model.quantize("int8"),
    ):
        with pytest.raises(ValueError, match="Strip it first"):
            call()
    assert unchanged(model, before)
    assert model.layers[0].quantization_mode is None
    stripped = technique[1](model)
    stripped.layers[-1].enable_lora(2)
    np.testing.assert_allclose(stripped.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6)
    stripped = technique[1](model)
    stripped.quantize("int8")
    assert stripped.layers[-1].quantization_mode == "int8"


def test_other_models_of_keras_are_left_alone(tmp_path):
    model = network()
    model.quantize("int8")
    assert model.layers[0].quantization_mode == "int8"
    with pytest.raises(FileNotFoundError):
        model.load_weights(tmp_path / "nothing.weights.h5")


FUNCTIONS = [
    prune_low_magnitude,
    lambda target: cluster_weights(target, 4),
    lambda target: cluster_weights(target, 4, preserve_sparsity=True),
    strip_pruning,
    strip_clustering,
    pruning_report,
    clustering_report,
    keras_mot.update_step,
    keras_mot.quantization.quantize_model,
    keras_mot.quantization.quantize_apply,
    keras_mot.quantization.strip_quantization,
    keras_mot.quantization.freeze_batch_norm,
    keras_mot.layers.copy_model,
    keras_mot.layers.find_weights,
    keras_mot.layers.strip,
    lambda target: keras_mot.layers.attach(target, {}),
]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_what_is_no_layer_is_told_so(function):
    tensor = keras.layers.Dense(2)(keras.Input((3,)))
    for other in (tensor, None, "model.keras", np.ones(3), keras.layers.Dense):
        with pytest.raises(TypeError, match="expects a Keras 3 model"):
            function(other)


def test_the_output_of_a_layer_is_told_from_the_layer():
    with pytest.raises(TypeError, match=r"write `prune_low_magnitude\(layer\)\(x\)`"):
        prune_low_magnitude(keras.layers.Dense(2)(keras.Input((3,))))


@pytest.mark.parametrize("function", FUNCTIONS[:2])
def test_what_is_no_layer_in_a_list_is_told_so(function):
    with pytest.raises(TypeError, match="expects a Keras 3 model or layer"):
        function([keras.layers.Dense(2), keras.Input((3,))])
