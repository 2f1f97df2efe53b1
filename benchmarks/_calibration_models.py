"""The models that calibration is judged on: each with inputs to calibrate on, and others to test on.

Samples are split three times, by speaker where there are any, by image or text otherwise.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable

import keras
import numpy as np
from _common import cifar10, data_file, load_model, loaders, mnist
from _training import speaker_folds

SPLITS = 3


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model with samples of three splits.

    Args:
        model: the float model, or a list of one for each split.
        splits: list of (inputs and labels to calibrate on, inputs and labels to test on), each a list of arrays, one
            for each input, and an array of labels; decisions of the float model, if there are no labels.
        decide: function from the outputs, in the model's order, to an array of decisions.
        labelled: whether the labels are real.
        loss: function from labels and outputs to the loss of each sample, or `None`.
    """

    model: keras.Model
    splits: list
    decide: Callable
    labelled: bool = True
    loss: Callable | None = None


def largest(outputs):
    return outputs[0].argmax(axis=-1)


def above_half(outputs):
    return outputs[0].reshape(-1) > 0.5


def cross_entropy(labels, outputs):
    """Of probabilities; of logits, if rows do not sum to 1."""
    rows = outputs[0].astype("float64")
    if rows.shape[-1] == 1:
        rows = np.concatenate([1 - rows, rows], axis=-1)
    if rows.min() < 0 or abs(rows.sum(-1) - 1).max() > 0.5:
        rows = np.exp(rows - rows.max(-1, keepdims=True))
        rows /= rows.sum(-1, keepdims=True)
    return -np.log(np.maximum(rows[np.arange(len(rows)), labels.astype(int)], 1e-4))


def apart(train, test, most):
    """Splits where training samples calibrate, and thirds of the test samples test."""
    parts = np.random.default_rng(0).permutation(len(test[1])) % SPLITS
    splits = []
    for number in range(SPLITS):
        chosen = np.flatnonzero(parts == number)[:most]
        seen = np.random.default_rng(number).permutation(len(train[1]))[:2048]
        splits.append((([train[0][seen]], train[1][seen]), ([test[0][chosen]], test[1][chosen])))
    return splits


def within(inputs, labels, parts=None, most=None):
    """Splits of one set: a third tests, the others calibrate."""
    if parts is None:
        parts = np.random.default_rng(0).permutation(len(labels)) % SPLITS

    def chosen(places):
        return [values[places] for values in inputs], labels[places]

    return [
        (chosen(np.flatnonzero(parts != number)), chosen(np.flatnonzero(parts == number)[:most]))
        for number in range(SPLITS)
    ]


def mnist_subject(most):
    return Subject(load_model("mnist/mnist_cnn.keras"), apart(*mnist(), most), largest, loss=cross_entropy)


def resnet8_subject(most):
    splits = apart(cifar10("train"), cifar10("test"), most)
    return Subject(load_model("cifar10/resnet8_jpegft.keras"), splits, largest, loss=cross_entropy)


def clips_by_speaker(most, prepared=np.asarray):
    data_file("kws/kws_mfcc.npz")
    clips = loaders().keyword_spotting()
    parts = speaker_folds(clips["speaker"], clips["x"], SPLITS)
    return within([prepared(clips["x"])], clips["y"].astype("int32"), parts, most)


def keyword_subject(name, prepared=np.asarray):
    return lambda most: Subject(
        load_model(f"kws/{name}.keras"), clips_by_speaker(most, prepared), largest, loss=cross_entropy
    )


def every_second_frame(x):
    return x[:, ::2, :, 0]


def all_frames(x):
    return x[..., 0]


def mobilenet_subject(most):
    from quantization_accuracy import mobilenet_task

    task = mobilenet_task()
    splits = within([task.train[0]], task.train[1].astype("int32"), most=most)
    return Subject(task.model, splits, largest, loss=cross_entropy)


def wild_subject(name):
    def subject(most):
        from wild_models import MODELS, samples_of

        model, (inputs, labels) = load_model(f"wild/{name}.keras"), samples_of(name)
        decide, labelled = MODELS[name].decide, labels is not None
        if not labelled:
            labels = decide(float_outputs(model, inputs))
        loss = cross_entropy if labelled else None
        return Subject(model, within(inputs, labels.astype("int32"), most=most), decide, labelled, loss)

    return subject


def float_outputs(model, inputs):
    """The outputs of a float model, in its order."""
    return keras.tree.flatten(model.predict(inputs if len(inputs) > 1 else inputs[0], verbose=0, batch_size=100))


# Models that are trained here, and kept.


def cached(name, make):
    """A model that was trained before, or is trained now; of a list of them, as `name` says."""
    folder = pathlib.Path(os.environ.get("KERAS_MOT_BENCHMARK_CACHE", pathlib.Path.home() / ".cache/keras_mot"))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.keras"
    if not path.exists():
        print(f"training {name}", flush=True)
        make().save(path)
    return keras.models.load_model(path, compile=False)


def _shifted(x, generator):
    """Clips moved in time by up to five frames, the edge repeated."""
    places = np.clip(np.arange(x.shape[1]) + generator.integers(-5, 6, (len(x), 1)), 0, x.shape[1] - 1)
    return np.take_along_axis(x, places[..., None], axis=1)


def trained_keyword_lstm(number):
    """An LSTM of 100 units over MFCC frames, trained on the speakers that a split calibrates on."""
    ((x,), y), _ = clips_by_speaker(None, all_frames)[number]
    keras.utils.set_random_seed(number)
    scale = x.std()
    inputs = keras.Input(x.shape[1:])
    recurrent = keras.layers.LSTM(100)
    model = keras.Model(inputs, keras.layers.Dense(12)(keras.layers.Dropout(0.3)(recurrent(inputs))))
    recurrent.cell.kernel.assign(recurrent.cell.kernel / scale)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    epochs, steps = 30, -(-len(x) // 32)
    rate = keras.optimizers.schedules.CosineDecay(3e-3, epochs * steps)
    model.compile(keras.optimizers.Adam(rate, clipnorm=1.0), loss, jit_compile=False)
    generator = np.random.default_rng(number)
    for _ in range(epochs):
        model.fit(_shifted(x, generator), y, batch_size=32, verbose=0)
    return model


def keyword_lstm_subject(most):
    """A model for each split: none has seen the speakers that it is tested on."""
    models = [
        cached(f"keyword_lstm_{number}", functools.partial(trained_keyword_lstm, number)) for number in range(SPLITS)
    ]
    return Subject(models, clips_by_speaker(most, all_frames), largest, loss=cross_entropy)


def sentences():
    data_file("sst2/sst2.npz")
    data = loaders().sst2()
    parts = []
    for names in (("train", "dev"), ("test",)):
        x, y = (np.concatenate([data[f"{kind}_{name}"] for name in names]).astype("int32") for kind in "xy")
        parts.append((x[:, ::-1], y))  # the padding first, so that it is not what an LSTM has read last
    return parts


def _fit_sentences(outputs, inputs, epochs, rate=1e-3):
    (x, y), _ = sentences()
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.Adam(rate), "binary_crossentropy", metrics=["accuracy"], jit_compile=False)
    model.fit(x, y, batch_size=64, epochs=epochs, verbose=2)
    return model


def trained_sentence_lstm():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((56,), dtype="int32")
    x = keras.layers.Embedding(10000, 32)(inputs)
    x = keras.layers.Dropout(0.4)(x)
    x = keras.layers.LSTM(32)(x)
    return _fit_sentences(keras.layers.Dense(1, "sigmoid")(keras.layers.Dropout(0.4)(x)), inputs, 6, 2e-3)


def trained_sentence_encoder():
    """A transformer encoder of one block, normalized before attention and before the dense layers."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((56,), dtype="int32")
    x = keras.layers.Embedding(10000, 32)(inputs)
    x = keras.layers.Dropout(0.3)(x)
    y = keras.layers.LayerNormalization()(x)
    x = keras.layers.Add()([x, keras.layers.MultiHeadAttention(4, 8)(y, y)])
    y = keras.layers.LayerNormalization()(x)
    y = keras.layers.Dense(32)(keras.layers.Dense(64, "gelu")(y))
    x = keras.layers.GlobalAveragePooling1D()(keras.layers.Add()([x, y]))
    return _fit_sentences(keras.layers.Dense(1, "sigmoid")(keras.layers.Dropout(0.3)(x)), inputs, 4)


def sentence_subject(name, make):
    return lambda most: Subject(cached(name, make), apart(*sentences(), most), above_half, loss=cross_entropy)


SUBJECTS = {
    "mnist": mnist_subject,
    "resnet8": resnet8_subject,
    "mobilenet": mobilenet_subject,
    "ds_cnn_l": keyword_subject("ds_cnn_l"),
    "ds_cnn_s": keyword_subject("ds_cnn_s"),
    "cnn_s": keyword_subject("cnn_s"),
    "gru_s": keyword_subject("gru_s", every_second_frame),
    "keyword_lstm": keyword_lstm_subject,
    "deepcut_cnn": wild_subject("deepcut_cnn"),
    "fer_mini_xception": wild_subject("fer_mini_xception"),
    "mtcnn_rnet": wild_subject("mtcnn_rnet"),
    "sentence_lstm": sentence_subject("sentence_lstm", trained_sentence_lstm),
    "sentence_encoder": sentence_subject("sentence_encoder", trained_sentence_encoder),
}
