"""What the scripts of this folder share: images of a few pixels, and the networks that guides like to show."""

import keras
import numpy as np
import pytest
from keras import layers

only_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's converter")

LOSS = "sparse_categorical_crossentropy"


def digits(count=96):
    """Images of 8 by 8 pixels, without an axis for channels, of four classes that a bar shows; labels."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, count)
    images = generator.random((count, 8, 8)).astype("float32") * 0.5
    for image, label in zip(images, labels, strict=True):
        image[:, 2 * label : 2 * label + 2] += 0.5
    return images, labels


def baseline():
    """The sequential network that most guides begin with, with `InputLayer` and `Reshape`."""
    return keras.Sequential(
        [
            layers.InputLayer(shape=(8, 8)),
            layers.Reshape(target_shape=(8, 8, 1)),
            layers.Conv2D(filters=6, kernel_size=(3, 3), activation="relu"),
            layers.MaxPooling2D(pool_size=(2, 2)),
            layers.Flatten(),
            layers.Dense(4, activation="softmax"),
        ]
    )


def trained(model, images, labels, epochs=1, rate=1e-3, **settings):
    """The model, compiled and trained as guides do it."""
    model.compile(optimizer=keras.optimizers.Adam(rate), loss=LOSS, metrics=["accuracy"])
    model.fit(images, labels, batch_size=32, epochs=epochs, verbose=0, **settings)
    return model


def kernels(model):
    """The kernels that a model stores, by the names of their layers."""
    found = [variable for variable in model.weights if variable.name == "kernel"]
    return {variable.path.split("/")[-2]: keras.ops.convert_to_numpy(variable) for variable in found}


def results_of(model, inputs):
    """What a model returns: without `predict`, which compiles another function for each model."""
    return keras.ops.convert_to_numpy(model(inputs, training=False))
