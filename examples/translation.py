"""An attention encoder-decoder of GNMT's kind, pruned to 80, 85 and 90 % while it trains on, then in integers.

It translates numbers, dates and prices in words, from English into German and back; `num2words` and Babel write the
pairs. That is easier than real text: float reaches 99.3 BLEU, pruned as above 99.8, 99.5 and 99.3 (it trains on), and
the last one 99.3 in integers, in the runtime. `benchmarks/translation.py` measures it beside GNMT's published table.

KERAS_BACKEND=tensorflow python examples/translation.py    # needs the extra `examples`; a quarter of an hour on a core
KERAS_BACKEND=tensorflow python examples/translation.py --quick    # only that it works
"""

import datetime
import functools
import pathlib
import re
import sys
import tempfile

import keras
import numpy as np
import sacrebleu
from babel.dates import get_day_names, get_month_names
from babel.numbers import get_currency_name
from keras import layers
from num2words import num2words

import keras_mot as kmot

words = functools.cache(lambda number, lang, to="cardinal": num2words(number, lang=lang, to=to))
CURRENCIES = ["AUD", "CHF", "CNY", "CZK", "DKK", "EUR", "GBP", "INR", "JPY", "MXN", "NOK", "PLN", "SEK", "TRY", "USD"]
PARTS = {words(n, "de") for n in (*range(20), *range(20, 100, 10))} | {"ein", "und", "hundert", "tausend"}
PIECES = re.compile(f"▁?(?:{'|'.join(sorted(PARTS, key=len, reverse=True))}|[^\\W▁]+|[^\\s▁])")
PADDING, START, END = range(3)
BATCH, MORE_RATE = 128, 4e-3


def phrase(kind, number, currency, lang):
    if kind == "number":
        return words(number, lang)
    if kind == "price":
        name = get_currency_name(currency, count=number // 100, locale=lang)
        return f"{words(number // 100, lang)} {name} {words(number % 100, lang)}"
    date = datetime.date(1500, 1, 1) + datetime.timedelta(days=number % 220_000)
    weekday, month = get_day_names(locale=lang)[date.weekday()], get_month_names(locale=lang)[date.month]
    day, year = words(date.day, lang, "ordinal"), words(date.year, lang, "year")
    return f"{weekday}, {month} {day}, {year}" if lang == "en" else f"{weekday}, der {day} {month} {year}"


def pairs(count, seed=0):
    """Different phrases, each with its translation into the language that the first piece of the first one says."""
    rng, found = np.random.default_rng(seed), {}
    while len(found) < count:
        kind, number = rng.choice(["number", "date", "price"]), int(10 ** rng.uniform(2, 6))
        drawn = kind, number if kind != "date" else int(rng.integers(220_000)), rng.choice(CURRENCIES)
        source, target = rng.permutation(["en", "de"])
        found[f"{target}: {phrase(*drawn, source)}"] = phrase(*drawn, target)
    return list(found.items())


def encode(texts):
    """Texts as rows of numbers of pieces, and the pieces: words, and parts of German numbers; "▁" begins a word."""
    rows = [PIECES.findall("▁" + text.replace(" ", "▁")) for text in texts]
    pieces = ["", "", "", *sorted({piece for row in rows for piece in row})]
    numbers = {piece: number for number, piece in enumerate(pieces) if number > END}
    ids = np.full((len(rows), max(map(len, rows)) + 2), PADDING, "int32")
    for line, row in zip(ids, rows, strict=True):
        line[: len(row) + 2] = [START, *(numbers[piece] for piece in row), END]
    return ids, pieces


def data(count, held_out, seed=0):
    """Rows of numbers to train on, and what `bleu` wants of the test."""
    sources, targets = zip(*pairs(count + held_out, seed), strict=True)
    (source, _), (target, pieces) = encode(sources), encode(targets)
    return (source[:count], target[:count]), (source[count:], targets[count:], target.shape[1] - 1, pieces)


def build(source, target, units):
    """Two decoder layers: what the lower one says chooses by attention what the upper one reads of the source."""
    inputs = [keras.Input((ids.shape[1],), dtype="int32") for ids in (source, target[:, 1:])]
    embedded, said = (
        layers.Embedding(int(ids.max()) + 1, 64)(x) for ids, x in zip((source, target), inputs, strict=True)
    )
    encoded = layers.Bidirectional(layers.LSTM(units // 2, return_sequences=True), name="encoder")(embedded)
    said = layers.LSTM(units, return_sequences=True, name="decoder")(said)
    read = layers.Attention()([said, encoded])
    x = layers.LSTM(units, return_sequences=True, name="upper_decoder")(layers.Concatenate()([said, read]))
    return keras.Model(inputs, layers.Dense(int(target.max()) + 1, name="pieces")(layers.Concatenate()([x, read])))


def train(model, source, target, epochs, rate=4e-3):
    decay = keras.optimizers.schedules.CosineDecay(rate, epochs * -(-len(source) // BATCH))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=PADDING)
    model.compile(keras.optimizers.Adam(decay, clipnorm=1.0), loss, jit_compile=False)
    model.fit([source, target[:, :-1]], target[:, 1:], batch_size=BATCH, epochs=epochs, verbose=2)
    return model


def prune(model, source, target, sparsity, epochs):
    """Goes on training, while zeros become more over the first half of the steps; in one ranking over the model."""
    end = max(1, epochs * len(source) // BATCH // 2)
    schedule = kmot.sparsity.PolynomialDecay(0.5, sparsity, begin_step=0, end_step=end, frequency=max(1, end // 30))
    pruned = kmot.sparsity.prune_low_magnitude(model, schedule, scope=kmot.sparsity.WholeModel())
    return train(pruned, source, target, epochs, rate=MORE_RATE)


def translate(predict, source, steps, pieces):
    """Greedily, piece by piece: `predict` maps [sources, targets so far] to logits."""
    said = np.full((len(source), steps), PADDING, "int32")
    said[:, 0] = START
    for step in range(1, steps):
        said[:, step] = predict([source, said])[:, step - 1].argmax(-1)
    ends = [list(line).index(END) if END in line else steps for line in said]
    return [
        "".join(pieces[i] for i in line[:end]).replace("▁", " ").strip() for line, end in zip(said, ends, strict=True)
    ]


def bleu(predict, source, texts, steps, pieces):
    return sacrebleu.corpus_bleu(translate(predict, source, steps, pieces), [texts]).score


def predictor(model):
    return lambda inputs: model.predict(inputs, batch_size=500, verbose=0)


def in_integers(model, source, target):
    quantized = kmot.quantization.quantize_post_training(model, calibration_data=[source[:300], target[:300, :-1]])
    with tempfile.TemporaryDirectory() as folder:
        file = kmot.export.export_litert(quantized, pathlib.Path(folder) / "int8.tflite")
        runner = kmot.export.LiteRTRunner(file.path)
    return lambda inputs: next(iter(runner.run(inputs).values())), file.bytes


def main(count=40_000, held_out=1000, units=96, epochs=5, more_epochs=4, sparsities=(0.8, 0.85, 0.9), integers=True):
    keras.utils.set_random_seed(0)
    train_on, test = data(count, held_out)
    model = train(build(*train_on, units), *train_on, epochs)
    print(f"float: BLEU {bleu(predictor(model), *test):.2f}", flush=True)
    for sparsity in sparsities:
        pruned = prune(model, *train_on, sparsity, more_epochs)
        print(f"{sparsity:.0%} zeros: BLEU {bleu(predictor(pruned), *test):.2f}", flush=True)
    if integers:
        runner, size = in_integers(pruned, *train_on)
        print(f"the last one in integers, in the runtime: BLEU {bleu(runner, *test):.2f}, {size:,} bytes")


if __name__ == "__main__":
    quick = dict(count=64, held_out=2, units=4, epochs=1, more_epochs=1, sparsities=(0.9,), integers=False)
    main(**(quick if "--quick" in sys.argv else {}))
