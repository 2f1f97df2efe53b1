"""The steps that `fit` counts are those that were trained, whatever the data and the execution."""

import keras
import numpy as np
import pytest

import keras_mot
from keras_mot.layers import transformed_weights
from keras_mot.sparsity import ConstantSparsity, prune_low_magnitude

SIZE = 4


def batch():
    return np.ones((SIZE, 3), "float32"), np.ones((SIZE, 2), "float32")


def generator(count):
    for _ in range(count):
        yield batch()


def endless():
    while True:
        yield batch()


class Endless(keras.utils.PyDataset):
    num_batches = None

    def __getitem__(self, index):
        return batch()


def stream(count):
    """Data of unknown length that can be gone through again, in the form that the backend has for it."""
    if keras.backend.backend() == "torch":
        import torch

        class Stream(torch.utils.data.IterableDataset):
            def __iter__(self):
                return (tuple(part[0] for part in batch()) for _ in range(count * SIZE))

        return torch.utils.data.DataLoader(Stream(), batch_size=SIZE)
    import tensorflow as tf

    signature = tuple(tf.TensorSpec(part.shape, part.dtype) for part in batch())
    return tf.data.Dataset.from_generator(lambda: generator(count), output_signature=signature)


def model_in_training(steps_per_execution=1, **settings):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    pruned = prune_low_magnitude(model, ConstantSparsity(0.5, 3, frequency=1))
    pruned.compile(keras.optimizers.SGD(0.1, **settings), "mse", steps_per_execution=steps_per_execution)
    return pruned


def mask_of(model):
    return transformed_weights(model)[0].transforms[0]


class Ends(keras.callbacks.Callback):
    """Makes Keras call the ends of steps in the training thread, and notes what a checkpoint would say."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(mask_of(self._model).step)


def skip_where_keras_cannot(steps_per_execution):
    if keras.backend.backend() == "torch" and steps_per_execution > 1:
        pytest.skip("Keras itself does not support `steps_per_execution` on PyTorch")


def check(model, expected):
    if keras.backend.backend() != "tensorflow" or model.steps_per_execution > 1:
        # TensorFlow adds to this number in parallel to asking for the data that is not there.
        assert int(keras.ops.convert_to_numpy(model.optimizer._iterations)) == expected
    assert mask_of(model).step == expected
    assert mask_of(model).updated_at == (expected if expected >= 3 else -1)


@pytest.mark.parametrize(
    ("form", "count", "steps_per_execution", "watched"),
    [
        (generator, 4, 1, False),
        (generator, 4, 1, True),
        (generator, 100, 20, False),
        (generator, 100, 16, False),
        (generator, 100, 16, True),
        (stream, 4, 1, False),
        (stream, 5, 8, False),
    ],
)
def test_data_of_unknown_length(form, count, steps_per_execution, watched):
    skip_where_keras_cannot(steps_per_execution)
    model, ends = model_in_training(steps_per_execution), Ends()
    model.fit(form(count), verbose=0, callbacks=[ends] if watched else [])
    check(model, count)
    if watched:
        full = range(steps_per_execution, count, steps_per_execution)
        assert ends.seen == [*full, count]


@pytest.mark.parametrize("steps_per_execution", [1, 3])
def test_epochs_validation_and_a_later_start(steps_per_execution):
    skip_where_keras_cannot(steps_per_execution)
    model, seen = model_in_training(steps_per_execution), []
    at_validation = keras.callbacks.LambdaCallback()
    at_validation.on_test_begin = lambda logs=None: seen.append(mask_of(model).step)
    data = stream(4)
    model.fit(data, epochs=4, initial_epoch=1, validation_data=batch(), verbose=0, callbacks=[at_validation])
    assert seen == [4, 8, 12]
    check(model, 12)
    model.fit(data, verbose=0)
    check(model, 16)


@pytest.mark.parametrize(
    ("form", "steps_per_execution", "steps_per_epoch"),
    [(endless, 1, 5), (Endless, 1, 5), (endless, 4, 8), (Endless, 4, 10)],
)
def test_steps_per_epoch(form, steps_per_execution, steps_per_epoch):
    """Keras runs whole executions where the data goes on: 12 steps for 10."""
    skip_where_keras_cannot(steps_per_execution)
    model = model_in_training(steps_per_execution)
    model.fit(form(), steps_per_epoch=steps_per_epoch, epochs=2, verbose=0)
    check(model, 2 * steps_per_execution * -(-steps_per_epoch // steps_per_execution))


@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_data_that_ends_before_its_epoch(steps_per_execution):
    skip_where_keras_cannot(steps_per_execution)
    model = model_in_training(steps_per_execution)
    model.fit(generator(6), steps_per_epoch=50, verbose=0)
    check(model, 6)


def test_gradients_that_are_accumulated():
    model = model_in_training(1 if keras.backend.backend() == "torch" else 4, gradient_accumulation_steps=2)
    model.fit(stream(7), verbose=0, epochs=2)
    check(model, 14)


def test_a_generator_that_has_little_left_for_the_second_epoch():
    """Two batches, which Keras has looked at before the first."""
    model = model_in_training()
    model.fit(generator(4), epochs=2, verbose=0)
    check(model, 6)


def test_a_training_step_of_the_users_own_counts_in_full_executions(backend):
    """Without a counter there is no better answer than the number that Keras knows."""
    skip_where_keras_cannot(4)

    class TwoSteps(keras.Sequential):
        def train_step(self, *args):
            result = super().train_step(*args)
            return super().train_step(result[1], args[1]) if backend == "jax" else super().train_step(*args)

    model = TwoSteps([keras.Input((3,)), keras.layers.Dense(2)])
    keras_mot.sparsity.prune_low_magnitude(model, ConstantSparsity(0.5, 0, frequency=1), inplace=True)
    model.compile("sgd", "mse", steps_per_execution=4)
    x, y = batch()
    model.fit(np.repeat(x, 10, 0), np.repeat(y, 10, 0), batch_size=SIZE, verbose=0)
    assert mask_of(model).step == 10
