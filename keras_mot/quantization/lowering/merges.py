"""Breaks down sums, products and the like: into such of two, or of a constant."""

from keras import layers


def chain(lowering, layer, inputs):
    """A sum or product of many as a chain of two each; `None` for one of two."""
    if len(inputs) < 3:
        return None
    total = inputs[0]
    for number, term in enumerate(inputs[1:-1]):
        step = lowering.make(layer, number, lambda number=number: type(layer)(name=f"{layer.name}_{number}"))
        total = step([total, term])
    return lowering.make(layer, "last", lambda: type(layer)(name=layer.name))([total, inputs[-1]])


def average(lowering, layer, inputs):
    """An average as a sum and a product."""
    add = lowering.make(layer, "sum", lambda: layers.Add(name=f"{layer.name}_sum"))
    return lowering.steps(add, inputs) * (1.0 / len(inputs))


def square(lowering, operation, x):
    """A square as a product."""
    return x * x


def negative(lowering, operation, x):
    """The negative as a product."""
    return x * -1.0
