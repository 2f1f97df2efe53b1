"""What an engine is asked for and what it hands back."""

import dataclasses


class UnsupportedOperationError(ValueError):
    """The model needs an operation that the plain LiteRT runtime does not have."""


@dataclasses.dataclass(frozen=True)
class ConversionRequest:
    """What to convert to.

    Attributes:
        weights: Data type of the weights, "float32", "float16" or "int8".
        batch_sizes: Batch sizes in the order of preference (None is an open batch dimension); the first one
            that can be converted is used.
        dense: Whether a file with all weights stored is wanted.
        sparse: Whether a file with sparsely encoded weights is wanted.
        marked: Whether activation quantizers shall leave marks in place of rounding.
        marked_weights: The weights that shall go through as marks, as (name of the layer in `model.layers`, place in
            its `variables`), which saving the model keeps; the number of a weight's mark is its place in this tuple.
    """

    weights: str
    batch_sizes: tuple
    dense: bool
    sparse: bool
    marked: bool = False
    marked_weights: tuple = ()


def places_of(model, variables):
    """Where variables are in a model, as `ConversionRequest.marked_weights` says it."""
    places = {}
    for layer in model.layers:
        for place, variable in enumerate(layer.variables):
            places.setdefault(id(variable), (layer.name, place))
    return tuple(places[id(variable)] for variable in variables)


def variables_at(model, places):
    """The variables of which `places_of` gave these places."""
    layers = {layer.name: layer for layer in model.layers}
    return [layers[name].variables[place] for name, place in places]


@dataclasses.dataclass(frozen=True)
class Conversion:
    """The contents of the `.tflite` files that were asked for, and what is the same in both.

    `output_names` are in the order of the Keras model's outputs. `sparse_failure` says why the sparse file is
    missing beside a dense one, `open_failure` why the batch size is not the one that was preferred.
    """

    dense: bytes | None
    sparse: bytes | None
    sparse_failure: str | None
    batch_size: int | None
    output_names: tuple
    open_failure: str | None = None


def convert_with(convert_one, request):
    """Goes through the batch sizes of a request with an engine's function for a single file.

    Args:
        convert_one: A function of (batch size, sparse encoding) that returns the content of a file and the
            names of its outputs, or raises ValueError.
        request: A `ConversionRequest`.

    Returns:
        A `Conversion`.

    Raises:
        ValueError: None of the batch sizes can be converted.
    """
    open_failure = None
    for batch_size in request.batch_sizes:
        dense = sparse = failure = None
        try:
            if request.dense:
                dense, names = convert_one(batch_size, False)
            if request.sparse:
                sparse, names = convert_one(batch_size, True)
        except ValueError as error:
            if dense is not None:
                failure = str(error)
            elif batch_size == request.batch_sizes[-1]:
                raise
            else:
                open_failure = str(error)
                continue
        return Conversion(dense, sparse, failure, batch_size, tuple(names), open_failure)
    raise ValueError("A conversion request needs at least one batch size.")
