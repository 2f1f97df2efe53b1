"""Writes docs/layers.md: what each layer and operation of Keras becomes in integers, from the tables that decide it.

Run it after a change of the tables: `python benchmarks/layers_table.py`. A test compares the page with what it writes.
"""

import pathlib
import re

import keras
from keras import activations, layers

from keras_mot.graph._kind_rows import OF_FUNCTIONS
from keras_mot.graph.kinds import TABLE
from keras_mot.quantization.lowering.table import _KINDS, _LAYERS
from keras_mot.targets import LITERT

PAGE = pathlib.Path(__file__).resolve().parents[1] / "docs" / "layers.md"
KERNEL, STEPS, LOOKED_UP, FLOATS, NOTHING = "kernel", "steps", "table", "floats", "nothing"
HEADER = """# Which layers compute in integers

This page is written by `benchmarks/layers_table.py` from the tables that decide: of operations
(`keras_mot.graph.kinds`), of steps (`keras_mot.quantization.lowering`) and of the kernels of LiteRT
(`keras_mot.targets`). For how to leave something in floats, and how to add a layer of yours, see
[the guide to quantization](quantization.md#what-computes-in-integers).

- **kernel**: one operator of the runtime computes it in integers.
- **steps**: it is broken down, exactly, into several that have kernels. A `SeparableConv2D` becomes two convolutions,
  `PReLU` a depthwise convolution of one pixel and a maximum.
- **table**: the file holds what becomes of each of the 256 integers, and looks it up. There is one rounding, that of
  the result, whatever the function.
- **nothing**: it does nothing in inference, and is not in the file.
- **floats**: it is left in floats, between conversions, and `export_litert` lists it.

Where there are several, it depends on the form: on arguments, on the shape, or on masks. int8 and int16 are the
activations; weights have 8 bits, or 4, with both. An activation within a layer, `Dense(activation="mish")` or a
function of your own, is computed as if it stood behind it. A function of your own that is made of element-wise
operations of `keras.ops` is one table.

What is in neither table stays in floats. Layers that are called with a mask stay in floats, too, unless they ignore it
in inference, or follow it in integers: recurrent layers and attention do.
"""


def ways(kind, bits, steps):
    """How operations of a kind compute, in the order of what is tried."""
    if kind.rank not in LITERT.ranks:
        return [STEPS] if steps else [FLOATS]
    if kind.name == "identity":
        return [NOTHING]
    found = [STEPS] if steps or kind.steps is not None or kind.name in _KINDS else []
    if kind.name in LITERT.kernels[bits]:
        return [*found, KERNEL]
    if kind.table and bits in LITERT.tables:
        return [*found, LOOKED_UP]
    return found or [FLOATS]


def of_class(cls, bits):
    """How operations of a class compute, in all its forms."""
    rows, steps = TABLE.get(cls, ()), cls in _LAYERS
    found = [way for kind in rows for way in ways(kind, bits, steps)] or [STEPS]
    if not rows or rows[-1].condition is not None:
        found.append(FLOATS)
    return ", ".join(dict.fromkeys(found))


def public_name(cls):
    """The name by which users know a class of layers or operations; `None` if there is none."""
    if issubclass(cls, keras.layers.Layer):
        return f"`{cls.__name__}`" if getattr(layers, cls.__name__, None) is cls else None
    special = {"GetItem": "x[...]", "Resize": "ops.image.resize", "Conj": None}
    if cls.__name__ in special:
        return f"`{special[cls.__name__]}`"
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()
    return f"`ops.{name}`" if hasattr(keras.ops, name) else None


def table(rows):
    """A table of names and how they compute."""
    lines = ["| | int8 | int16 |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {eight} | {sixteen} |" for name, eight, sixteen in sorted(set(rows)))])


def page():
    """The text of the page."""
    groups = {"Layers": [], "Operations of `keras.ops`": []}
    for cls in {**TABLE, **_LAYERS}:
        name = public_name(cls)
        if name is None or cls is layers.Activation or not cls.__module__.startswith("keras."):
            continue
        group = "Layers" if issubclass(cls, keras.layers.Layer) else "Operations of `keras.ops`"
        groups[group].append((name, of_class(cls, 8), of_class(cls, 16)))
    named = [
        (f'`"{function.__name__}"`', *(", ".join(ways(kind, bits, False)) for bits in (8, 16)))
        for function, kind in OF_FUNCTIONS.items()
        if getattr(activations, function.__name__, None) is function
    ]
    groups["Activations"] = [*named, ("a function of each element", LOOKED_UP, FLOATS)]
    sections = [f"## {title}\n\n{table(rows)}\n" for title, rows in groups.items()]
    return "\n".join([HEADER, *sections])


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"{PAGE}: {sum(line.startswith('|') for line in page().splitlines())} lines of tables")
