"""On PyTorch: the parameters of a copy are those of the model, in its order and with its names."""

import copy

import keras
import numpy as np
import pytest
from keras import layers

from keras_mot.clustering import cluster_weights
from keras_mot.layers import copy_model
from keras_mot.quantization import QuantizationScheme, quantize_model
from keras_mot.sparsity import ConstantSparsity, prune_low_magnitude, pruning_report, update_pruning_step
from tests.layers.model_zoo import MODELS

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(keras.backend.backend() != "torch", reason="PyTorch's own modules")

X = np.random.default_rng(0).normal(size=(16, 6)).astype("float32")


def network():
    """Layers whose names come before and after the model's own in the alphabet."""
    return keras.Sequential(
        [
            layers.Input((6,)),
            layers.Dense(8, name="zebra"),
            layers.BatchNormalization(name="a"),
            layers.Dense(3, name="m"),
        ]
    )


def both(model):
    return cluster_weights(prune_low_magnitude(model, ConstantSparsity(0.5)), 4)


KINDS = {
    "pruned": lambda model: prune_low_magnitude(model, ConstantSparsity(0.5)),
    "clustered": lambda model: cluster_weights(model, 4),
    "both": both,
    "quantized": lambda model: quantize_model(model, QuantizationScheme(learned_scales=True), calibration_data=X),
}
COMPOSITES = [
    (name, kind)
    for name in ("composite", "subclassed", "nested", "time_distributed", "bidirectional")
    for kind in ("pruned", "both")
]


def parameters(model):
    return [(name, tuple(parameter.shape), parameter.dtype) for name, parameter in model.named_parameters()]


@pytest.mark.parametrize("copied", [copy_model, copy.deepcopy])
@pytest.mark.parametrize(("name", "kind"), [("network", kind) for kind in KINDS] + COMPOSITES)
def test_a_copy_lists_the_same_parameters(name, kind, copied):
    model = KINDS[kind](network() if name == "network" else MODELS[name][0]())
    other = copied(model)
    assert parameters(other) == parameters(model)
    assert list(other.state_dict()) == list(model.state_dict())
    state = model.state_dict()
    for key, value in other.state_dict().items():
        if "seed_generator" not in key:  # Keras does not save these
            torch.testing.assert_close(value, state[key])
    assert not {id(p) for p in other.parameters()} & {id(p) for p in model.parameters()}
    assert len(list(model.parameters())) == len(model.variables)
    other.load_state_dict(state)


def test_averaged_models():
    """Weights are averaged; masks and assignments, which are no floats, are those of the last step."""
    pruned = both(network())
    update_pruning_step(pruned, 0)
    averaged = torch.optim.swa_utils.AveragedModel(
        pruned, avg_fn=lambda mean, new, count: mean + (new - mean) / (count + 1) if new.is_floating_point() else new
    )
    averaged.update_parameters(pruned)
    first = pruned.get_layer("m").bias.value.detach().clone()
    pruned.get_layer("m").bias.assign(pruned.get_layer("m").bias + 2.0)
    averaged.update_parameters(pruned)
    torch.testing.assert_close(averaged.module.get_layer("m").bias.value.detach(), first + 1.0)
    assert pruning_report(averaged.module).sparsity == 0.5
    assert averaged(torch.as_tensor(X)).shape == (16, 3)


def test_a_deep_copy_of_a_plain_model_is_what_keras_makes_of_it():
    model = network()
    model.compile("adam", "mse")
    other = copy.deepcopy(model)
    np.testing.assert_allclose(other.predict(X, verbose=0), model.predict(X, verbose=0), rtol=1e-6)
    assert other.compiled
    pruned = KINDS["pruned"](model)
    pruned.compile("adam", "mse")
    assert copy.deepcopy(pruned).compiled
    assert [copy.deepcopy([pruned, pruned])[index] is not pruned for index in (0, 1)] == [True, True]
