"""ResNet-8 of MLPerf Tiny on CIFAR-10: half of its weights zero in one ranking, then in integers, trained.

How much is kept is a matter of epochs: `benchmarks/pruning_accuracy.py resnet8` has 84.6 % of 84.7 % after twelve.

On CIFAR-10 as Keras downloads it, or on the JPEGs and the trained model of the folder `KERAS_MOT_DATA` (see
benchmarks/README.md).

KERAS_BACKEND=tensorflow python examples/cifar_resnet8.py    # `--quick`: a narrower network, on a few made-up images
"""

import os
import sys

import keras
import numpy as np
from keras import layers

import keras_mot as kmot
from keras_mot.recipes import FineTune, PostTraining, Prune, QuantizeAware, Recipe

QUICK = "--quick" in sys.argv
keras.utils.set_random_seed(0)


def images():
    """(images, labels) to train on and to test with."""
    if QUICK:  # one of ten colours, with noise
        rng = np.random.default_rng(0)
        y = rng.integers(0, 10, 160)
        x = rng.uniform(0, 255, (10, 1, 1, 3))[y] + rng.normal(0, 20, (160, 16, 16, 3))
        return (x[:128], y[:128]), (x[128:], y[128:])
    if "KERAS_MOT_DATA" in os.environ:
        sys.path.insert(0, os.environ["KERAS_MOT_DATA"])
        return [__import__("load").cifar10(part) for part in ("train", "test")]
    return keras.datasets.cifar10.load_data()


def convolution(x, filters, size, strides=1, activation=None):
    x = layers.Conv2D(filters, size, strides, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    return layers.ReLU()(x) if activation else x


def trained_model(train):
    if "KERAS_MOT_DATA" in os.environ and not QUICK:
        return keras.models.load_model(f"{os.environ['KERAS_MOT_DATA']}/cifar10/resnet8_jpegft.keras")
    inputs = keras.Input(train[0].shape[1:])
    x = convolution(layers.Rescaling(1 / 127.5, -1)(inputs), 4 if QUICK else 16, 3, activation="relu")
    for filters, strides in ((8, 2),) if QUICK else ((16, 1), (32, 2), (64, 2)):
        y = convolution(convolution(x, filters, 3, strides, activation="relu"), filters, 3)
        x = x if strides == 1 else convolution(x, filters, 1, strides)
        x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(10, activation="softmax")(x))
    epochs = 1 if QUICK else 20
    decay = keras.optimizers.schedules.CosineDecay(3e-3, epochs * -(-len(train[1]) // 128))
    model.compile(keras.optimizers.Adam(decay), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(*train, batch_size=128, epochs=epochs, verbose=2)
    return model


train, test = [(x.astype("float32"), y.ravel().astype("int32")) for x, y in images()]
tune = None if QUICK else FineTune(1, 5e-4, batch_size=128, schedule="cosine")
last = PostTraining() if QUICK else QuantizeAware(fine_tune=FineTune(1, 1e-4, batch_size=128, schedule="cosine"))
recipe = Recipe([Prune(0.5, scope="model", fine_tune=tune), last], name="resnet8")
print(kmot.compress(trained_model(train), recipe, train, test, latency_runs=0 if QUICK else 50, progress=False))
