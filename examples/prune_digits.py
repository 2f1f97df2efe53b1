"""Prunes a small network to 90 % while fine-tuning it, exports it, and measures what was gained.

Runs on any backend: `KERAS_BACKEND=jax python examples/prune_digits.py`. Takes about half a minute.
"""

import tempfile

import keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_mot as kmot

keras.utils.set_random_seed(0)
x, y = load_digits(return_X_y=True)
x = x.reshape(-1, 8, 8, 1).astype("float32") / 16
x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=360, random_state=0)

# A trained model: yours.
model = keras.Sequential(
    [
        keras.Input((8, 8, 1)),
        keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
        keras.layers.Conv2D(64, 3, padding="same", activation="relu"),
        keras.layers.MaxPooling2D(),
        keras.layers.Flatten(),
        keras.layers.Dense(128, activation="relu"),
        keras.layers.Dense(10, activation="softmax"),
    ]
)
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(x_train, y_train, epochs=10, verbose=2)

# Prune it while it goes on training: 45 steps an epoch, and the sparsity rises over the first 330 of 450.
schedule = kmot.sparsity.PolynomialDecay(0.5, 0.9, begin_step=0, end_step=330, frequency=20)
pruned = kmot.sparsity.prune_low_magnitude(model, schedule)
pruned.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
pruned.fit(x_train, y_train, epochs=10, verbose=2)
small = kmot.sparsity.strip_pruning(pruned)

# Export both, and let the runtime itself say how good they are.
with tempfile.TemporaryDirectory() as folder:
    files = {
        "float": kmot.export.export_litert(model, f"{folder}/float.tflite"),
        "pruned": kmot.export.export_litert(small, f"{folder}/pruned.tflite"),
    }
    print(kmot.analysis.measure(files, data=(x_test, y_test)))
