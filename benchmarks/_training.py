"""How the benchmarks of accuracy train: recipes, changed samples, a teacher's labels, parts of the speakers."""

import dataclasses
import time

import keras
import numpy as np
from _common import compile_classifier, data_file, loaders

import keras_mot


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a model is fine-tuned, with Adam or Lamb.

    The sparsity rises from `initial_sparsity` to the target over the first `pruning_share` of the steps; the
    rest is for recovery. The learning rate is a third and a tenth after `decay_shares` of the steps: falling
    earlier, it would leave the last pruned weights without a replacement. `temperature` softens the
    probabilities of model and teacher where there is one: above 1, the teacher says more of the less likely classes.
    """

    epochs: int
    learning_rate: float
    batch_size: int = 128
    initial_sparsity: float = 0.5
    pruning_share: float = 0.5
    frequency: int = 100
    decay_shares: tuple = (0.75, 0.9)
    temperature: float = 1.0
    optimizer: str = "Adam"


class Augmented(keras.utils.PyDataset):
    """Batches of images or spectrograms, changed at random, in a random order.

    Args:
        x: samples of shape (count, height, width, channels).
        y: integer labels.
        seed: of the random numbers.
        recipe: a `Recipe`.
        shift: largest shift along height and width; what comes in is the edge repeated.
        flip: whether to mirror every second sample.
        mix: whether to mix each sample with another one, which needs a teacher.
        teacher: a model whose probabilities, at the recipe's temperature, are the labels (Hinton et al., 2015,
            arXiv:1503.02531; with mixed samples as in Beyer et al., 2022, arXiv:2106.05237), or None.
        logits: whether the teacher returns logits.
    """

    def __init__(self, x, y, seed, recipe, shift, flip=False, mix=False, teacher=None, logits=False):
        super().__init__()
        self.x = x
        self.y, self.batch_size, self.shape = y, recipe.batch_size, x.shape[1:3]
        self.shift, self.flip, self.mix, self.teacher, self.logits = shift, flip, mix, teacher, logits
        self.temperature = recipe.temperature
        self.generator = np.random.default_rng(seed)
        self.order = self.generator.permutation(len(y))

    def __len__(self):
        return -(-len(self.y) // self.batch_size)

    def __getitem__(self, index):
        chosen = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        x = self._changed(chosen)
        if self.mix:
            share = self.generator.random((len(x), 1, 1, 1), "float32")
            x = share * x + (1 - share) * self._changed(self.generator.permutation(chosen))
        if self.teacher is None:
            return x, self.y[chosen]
        return x, self._soft_labels(self.teacher.predict_on_batch(x))

    def _soft_labels(self, outputs):
        logits = (outputs if self.logits else np.log(np.maximum(outputs, 1e-7))) / self.temperature
        exponentials = np.exp(logits - logits.max(-1, keepdims=True))
        return exponentials / exponentials.sum(-1, keepdims=True)

    def _changed(self, chosen):
        tops, lefts = (self.generator.integers(0, 2 * limit + 1, len(chosen)) for limit in self.shift)
        rows = tops[:, None, None] + np.arange(self.shape[0])[:, None] - self.shift[0]
        columns = lefts[:, None, None] + np.arange(self.shape[1]) - self.shift[1]
        rows, columns = (np.clip(at, 0, size - 1) for at, size in zip((rows, columns), self.shape, strict=True))
        x = self.x[chosen[:, None, None], rows, columns].astype("float32")
        if self.flip:
            flipped = self.generator.random(len(chosen)) < 0.5
            x[flipped] = x[flipped, :, ::-1]
        return x

    def on_epoch_end(self):
        self.order = self.generator.permutation(len(self.y))


def fine_tune(model, data, recipe, seed, pruning=None, from_logits=False):
    """Fine-tunes a copy of `model`, pruned as `pruning` (arguments of `prune_low_magnitude`) says.

    Args:
        data: a pair of arrays, or `Augmented`.

    Returns:
        The stripped model, or the plain one where `pruning` is None, and the seconds that `fit` took.
    """
    keras.utils.set_random_seed(seed)
    if pruning is None:
        trained = keras.models.clone_model(model)
        trained.set_weights(model.get_weights())
    else:
        pruning = dict(pruning)
        target = pruning.pop("sparsity")
        schedule = keras_mot.sparsity.PolynomialDecay(
            initial_sparsity=min(recipe.initial_sparsity, target),
            final_sparsity=target,
            begin_step=0,
            end_step=max(1, int(recipe.pruning_share * steps_of(data, recipe))),
            frequency=recipe.frequency,
        )
        trained = keras_mot.sparsity.prune_low_magnitude(model, schedule, **pruning)
    seconds = train_by_recipe(trained, data, recipe, from_logits)
    return (trained if pruning is None else keras_mot.sparsity.strip_pruning(trained)), seconds


def steps_of(data, recipe):
    """How many training steps the recipe takes on `data`, a pair of arrays or `Augmented`."""
    return recipe.epochs * (len(data) if isinstance(data, Augmented) else -(-len(data[1]) // recipe.batch_size))


def train_by_recipe(model, data, recipe, from_logits):
    """Trains the model; returns the seconds that `fit` took."""
    augmented, steps = isinstance(data, Augmented), steps_of(data, recipe)
    rate = keras.optimizers.schedules.PiecewiseConstantDecay(
        [int(share * steps) for share in recipe.decay_shares],
        [recipe.learning_rate / factor for factor in (1, 3, 10)],
    )
    optimizer = getattr(keras.optimizers, recipe.optimizer)(rate)
    # XLA's convolutions take twice the time of TensorFlow's own on a processor; the result is the same.
    options = {"jit_compile": False} if keras.backend.backend() == "tensorflow" else {}
    if augmented and data.teacher is not None:
        loss = soft_cross_entropy(recipe.temperature, from_logits)
        model.compile(optimizer, loss, metrics=["accuracy"], **options)
    else:
        compile_classifier(model, optimizer, from_logits, **options)
    arguments = (data,) if augmented else data
    options = {} if augmented else {"batch_size": recipe.batch_size}
    started = time.perf_counter()
    model.fit(*arguments, epochs=recipe.epochs, verbose=2, **options)
    return time.perf_counter() - started


def soft_cross_entropy(temperature, from_logits):
    """The loss against a teacher's probabilities at a temperature."""

    def loss(labels, outputs):
        logits = outputs if from_logits else keras.ops.log(keras.ops.maximum(outputs, 1e-7))
        return keras.losses.categorical_crossentropy(labels, logits / temperature, from_logits=True)

    return loss


def cut(data, count):
    return tuple(part[:count] if isinstance(part, np.ndarray) else part for part in data)


def layer_sizes(layer):
    """What a layer is made of, as arguments that both Keras 3 and `tf_keras` take."""
    names = ("filters", "kernel_size", "strides", "padding", "use_bias", "units", "depth_multiplier", "epsilon")
    config = layer.get_config()
    return {name: config[name] for name in (*names, "momentum", "scale", "center", "max_value") if name in config}


def speaker_parts(count, quick=False):
    """(number, training clips, test clips) of each part of the keyword spotting clips, as pairs of arrays.

    The 2547 test clips are split by speaker in `count` parts: a part is measured on, the others are trained on,
    joined by the 205 training clips that come with the data.
    """
    data_file("kws/kws_mfcc.npz")
    clips = loaders().keyword_spotting()
    x, y = clips["x"], clips["y"].astype("int32")
    extra = clips["x_cal"], clips["y_cal"].astype("int32")
    parts = speaker_folds(clips["speaker"], x, count)
    for number in range(2 if quick else count):
        train, test = ((x[chosen], y[chosen]) for chosen in (parts != number, parts == number))
        train = tuple(np.concatenate(pair) for pair in zip(train, extra, strict=True))
        print(f"part {number}: {len(train[1])} clips to train on, {len(test[1])} to measure on", flush=True)
        yield number, train, test


def speaker_folds(speakers, x, count):
    """The part of each clip: whole speakers, dealt out by size; the same clip under two ids counts as one."""
    groups = {}
    for index, clip in enumerate(x):
        groups.setdefault(clip.tobytes(), []).append(index)
    speakers = speakers.astype(int).copy()
    for same in groups.values():
        for index in same[1:]:
            speakers[speakers == speakers[index]] = speakers[same[0]]
    ids, sizes = np.unique(speakers, return_counts=True)
    order = np.random.RandomState(0).permutation(len(ids))
    order = order[np.argsort(-sizes[order], kind="stable")]
    totals, part_of = np.zeros(count, int), {}
    for index in order:
        part = int(totals.argmin())
        part_of[ids[index]] = part
        totals[part] += sizes[index]
    return np.array([part_of[speaker] for speaker in speakers])


def mean_row(name, rows):
    """The mean over the parts, each weighted by its clips."""
    chosen = [row for row in rows if row["name"] == name]
    clips = [row["clips"] for row in chosen]
    keys = (
        "accuracy",
        "agreement",
        "sparsity",
        "bytes",
        "zipped_bytes",
        "sparse_bytes",
        "sparse_zipped_bytes",
        "fit_seconds",
    )
    result = {"name": name, "sparse_encoding": chosen[0].get("sparse_encoding")}
    for key in keys:
        if key in chosen[0]:
            mean = float(np.average([row[key] for row in chosen], weights=clips))
            result[key] = int(mean) if "bytes" in key else round(mean, 6)
    return result
