"""The sentiment of sentences by an LSTM, pruned, clustered and in integers by one recipe.

An embedding of 10,000 words is most of such a model, and most of what is saved: on SST-2, float has 78.1 % and 2.5 MB
zipped; pruned 80.3 % and 625 kB, clustered 79.6 % and 169 kB, in integers 79.4 % and 152 kB, in the runtime.

On SST-2 of the folder `KERAS_MOT_DATA` (see benchmarks/README.md), or on the reviews of IMDB, which Keras downloads.

KERAS_BACKEND=tensorflow python examples/sentiment.py    # `--quick`: on a few made-up sentences
"""

import os
import sys
import tempfile

import keras
import numpy as np
from keras import layers

import keras_mot as kmot
from keras_mot.recipes import Cluster, FineTune, PostTraining, Prune, Recipe

QUICK = "--quick" in sys.argv
WORDS = 50 if QUICK else 10_000
keras.utils.set_random_seed(0)


def sentences():
    """(ids of words, 0 or 1) to train on and to test with, of one length."""
    if QUICK:  # whether there are more words of the lower half or of the upper one
        x = np.random.default_rng(0).integers(1, WORDS, (256, 3))
        y = (x > WORDS // 2).sum(axis=1) > 1
        return (x[:192], y[:192]), (x[192:], y[192:])
    if "KERAS_MOT_DATA" in os.environ:
        sys.path.insert(0, os.environ["KERAS_MOT_DATA"])
        data = __import__("load").sst2()
        # Padding goes in front, so that what the LSTM reads last are words.
        x = {
            part: np.stack([np.roll(row, (row == 0).sum()) for row in data[f"x_{part}"]]) for part in ("train", "test")
        }
        return (x["train"], data["y_train"]), (x["test"], data["y_test"])
    train, test = keras.datasets.imdb.load_data(num_words=WORDS)
    return [(keras.utils.pad_sequences(x, 100), y) for x, y in (train, test)]


train, test = [(x.astype("int32"), y.astype("int32")) for x, y in sentences()]
model = keras.Sequential(
    [
        keras.Input(train[0].shape[1:], dtype="int32"),
        layers.Embedding(WORDS, 8 if QUICK else 64, name="words"),
        layers.SpatialDropout1D(0.3),
        layers.LSTM(8 if QUICK else 64, name="lstm"),
        layers.Dense(2, activation="softmax", name="sentiment"),
    ]
)
model.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(*train, batch_size=64, epochs=1 if QUICK else 4, verbose=2)

tune = None if QUICK else FineTune(2, 1e-3, batch_size=64, schedule="cosine")
recipe = Recipe(
    [Prune(0.8, frequency=10, fine_tune=tune), Cluster(16, fine_tune=tune), PostTraining()], name="sentiment"
)
with tempfile.TemporaryDirectory() as folder:
    result = kmot.compress(model, recipe, train, test, output_dir=folder, latency_runs=0, progress=False)
    print(result)
    print("Smallest at no more than 2 points below float:", result.best(max_drop=0.02).artifact.name)
