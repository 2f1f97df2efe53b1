"""Quantizes a small network to 8-bit integers, with and without training, and measures the files.

KERAS_BACKEND=tensorflow python examples/quantize_digits.py
"""

import pathlib
import tempfile

import keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_mot as kmot
from keras_mot.quantization import quantize_model, quantize_post_training

keras.utils.set_random_seed(0)
digits = load_digits()
images = digits.images[..., None].astype("float32") / 16.0
x_train, x_test, y_train, y_test = train_test_split(images, digits.target, test_size=0.25, random_state=0)

model = keras.Sequential(
    [
        keras.Input((8, 8, 1)),
        keras.layers.Conv2D(32, 3, padding="same", use_bias=False),
        keras.layers.BatchNormalization(),
        keras.layers.ReLU(),
        keras.layers.MaxPooling2D(2),
        keras.layers.Flatten(),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(10, activation="softmax"),
    ]
)
model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(x_train, y_train, batch_size=32, epochs=15, verbose=2)

after_training = quantize_post_training(model, calibration_data=x_train[:300])
trained = quantize_model(model, calibration_data=x_train[:300])
trained.compile(keras.optimizers.Adam(1e-4), "sparse_categorical_crossentropy", metrics=["accuracy"])
trained.fit(x_train, y_train, batch_size=32, epochs=3, verbose=2)

folder = pathlib.Path(tempfile.mkdtemp())
named = {"float": model, "int8": after_training, "int8, trained": trained}
files = {
    name: kmot.export.export_litert(item, folder / f"{name.replace(', ', '_')}.tflite") for name, item in named.items()
}
print(kmot.analysis.measure(files, data=(x_test, y_test)))
