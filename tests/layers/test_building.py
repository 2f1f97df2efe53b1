"""What is built before training begins, on TensorFlow: the other backends build optimizers themselves."""

import keras
import numpy as np
import pytest

from keras_mot.quantization import quantize_model
from keras_mot.sparsity import ConstantSparsity, prune_low_magnitude

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Keras does it on other backends")


@pytest.mark.parametrize("technique", [lambda model: prune_low_magnitude(model, ConstantSparsity(0.5)), quantize_model])
def test_a_training_step_is_traced_once(technique, rng):
    """A step that makes the optimizer's variables is traced again without them."""
    traced = []

    class Loss(keras.losses.MeanSquaredError):
        def call(self, y_true, y_pred):
            traced.append(y_pred)
            return super().call(y_true, y_pred)

    model = technique(keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)]))
    model.compile("adam", Loss())
    model.fit(rng.normal(size=(8, 6)), np.ones((8, 2)), batch_size=4, epochs=2, verbose=0)
    assert model.optimizer.built
    assert len(traced) == 1


def test_an_optimizer_that_trains_a_part_is_left_to_its_step(rng):
    class Half(keras.Model):
        def train_step(self, data):
            raise RuntimeError(f"built: {self.optimizer.built}")

    inputs = keras.Input((6,))
    model = prune_low_magnitude(Half(inputs, keras.layers.Dense(2)(inputs)), ConstantSparsity(0.5))
    model.compile("adam", "mse", run_eagerly=True)
    with pytest.raises(RuntimeError, match="built: False"):
        model.fit(rng.normal(size=(8, 6)), np.ones((8, 2)), verbose=0)
