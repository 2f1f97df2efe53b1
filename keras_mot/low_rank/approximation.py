"""A kernel as it is after a factorization, without changing the model: for what compares many ranks."""

from collections.abc import Sequence

import keras
import numpy as np

from keras_mot.low_rank._kernels import kernel_of
from keras_mot.low_rank.aware import matrices_for
from keras_mot.low_rank.decompositions import Decomposition, composed
from keras_mot.low_rank.factorize import options_of


def approximations(
    layer: keras.layers.Layer,
    shares: Sequence[float],
    moments: np.ndarray | None = None,
    decomposition: Decomposition | None = None,
) -> dict[float, tuple[np.ndarray, int]]:
    """The kernel of a layer as it is when shares of its parameters stay.

    Args:
        layer: a built layer.
        shares: of the parameters of the kernel.
        moments: second moments of the inputs, (rows, rows), as of `Decomposition.options`; `None` without data.
        decomposition: of convolutions; by default, what is best for each share.

    Returns:
        Dictionary from those shares that are possible to (the kernel, in the shape of the layer's variable; the number
        of parameters of its factors).
    """
    kernel = kernel_of(layer)
    if isinstance(kernel, str):
        return {}
    options, matrices = options_of(kernel.values, decomposition, moments), matrices_for(layer, kernel)
    found = {}
    for share in shares:
        fitting = [option for option in options if option.parameters <= share * kernel.values.size]
        if fitting:
            best = min(fitting, key=lambda option: (option.error, option.parameters))
            new = composed(best.decomposition.factors(kernel.values, best.ranks, moments))
            if matrices is not None:
                new = matrices.from_matrices(new.reshape(matrices.shape), np.zeros(kernel.variable.shape))
            found[share] = new.reshape(kernel.variable.shape), best.parameters
    return found
