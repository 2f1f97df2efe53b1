"""Mutated `.tflite` files, given to `keras_mot.analysis.measure`, which reads and runs them."""

import random
import struct

from _attacks_common import called, tiny_model

_EDGES = (0, 1, 2, 3, 0xFFFFFFFF, 0x7FFFFFFF, 0x80000000)
_SECONDS = 200.0  # a mutant may compute much: the library stops a run after two minutes
_TAIL = 3000  # bytes at the end, where the tables of small files are


def mutants(count):
    """A group of `count` mutants of sparse, dense, half, integer and recurrent files."""

    def mutated_files(scratch, seed):
        import keras_mot

        originals = _originals(scratch)
        names, path = list(originals), scratch / "mutant.tflite"
        for number in range(count):
            dice = random.Random(seed * count + number)
            name = names[number % len(names)]
            kind = dice.choice(list(_KINDS))
            content = bytearray(originals[name])
            path.write_bytes(_KINDS[kind](content, dice) or content)
            problem = called(
                lambda: keras_mot.analysis.measure(path, latency_runs=2, progress=False),
                refusal=False,
                seconds=_SECONDS,
            )
            yield f"{name}, {kind}, mutant {number}", problem

    return mutated_files


def _originals(scratch):
    """Contents of files by a name for each."""
    import keras
    import numpy as np

    from keras_mot.export import export_litert
    from keras_mot.quantization import quantize_post_training

    model = tiny_model()
    generator = np.random.default_rng(0)
    for weight in model.weights:
        values = np.array(keras.ops.convert_to_numpy(weight))
        if values.ndim > 1:
            values[generator.random(values.shape) < 0.9] = 0.0
            weight.assign(values)
    samples = generator.random((8, 8, 8, 3), "float32")
    recurrent = keras.Sequential([keras.Input((5, 4)), keras.layers.GRU(6), keras.layers.Dense(2)], name="recurrent")
    exports = {
        "sparse": (model, {"sparse_encoding": True}),
        "dense": (model, {"sparse_encoding": False}),
        "half": (model, {"weights": "float16"}),
        "integer": (quantize_post_training(model, calibration_data=samples), {}),
        "recurrent": (recurrent, {}),
    }
    return {
        name: export_litert(exported, scratch / f"{name}.tflite", **options).path.read_bytes()
        for name, (exported, options) in exports.items()
    }


def _flip_bits(content, dice):
    for _ in range(dice.choice((1, 3, 10, 50))):
        content[dice.randrange(8, len(content))] ^= 1 << dice.randrange(8)


def _flip_tables(content, dice):
    for _ in range(dice.choice((1, 2, 5))):
        content[dice.randrange(max(8, len(content) - _TAIL), len(content))] ^= 1 << dice.randrange(8)


def _number(content, dice, start=8):
    place = dice.randrange(start // 4, len(content) // 4) * 4
    struct.pack_into(
        "<I", content, place, dice.choice((*_EDGES, dice.randrange(300), dice.randrange(2**32), len(content)))
    )


def _number_in_tables(content, dice):
    _number(content, dice, max(8, len(content) - _TAIL))


def _step(content, dice):
    place = dice.randrange(8, len(content))
    content[place] = (content[place] + dice.choice((-2, -1, 1, 2))) % 256


def _cut(content, dice):
    return content[: dice.randrange(len(content))]


def _blank(content, dice):
    size = dice.choice((1, 4, 16, 64))
    place = dice.randrange(8, len(content) - size)
    content[place : place + size] = bytes(size)


def _insert(content, dice):
    place = dice.randrange(8, len(content))
    content[place:place] = dice.randbytes(dice.choice((1, 4, 8)))


def _delete(content, dice):
    place = dice.randrange(8, len(content))
    del content[place : place + dice.choice((1, 4, 8))]


def _transplant(content, dice):
    size = 4 * dice.randrange(1, 50)
    source, target = (dice.randrange(2, (len(content) - size) // 4) * 4 for _ in range(2))
    content[target : target + size] = content[source : source + size]


_KINDS = {
    "bits flipped": _flip_bits,
    "bits of the tables flipped": _flip_tables,
    "a number changed": _number,
    "a number of the tables changed": _number_in_tables,
    "a byte stepped": _step,
    "truncated": _cut,
    "a part blanked": _blank,
    "bytes inserted": _insert,
    "bytes deleted": _delete,
    "a part copied over another": _transplant,
}
