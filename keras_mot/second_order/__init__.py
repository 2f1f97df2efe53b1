"""Second-order information: layers' kernels as matrices, the second moments of their inputs, and what solves them.

H = X'X of a layer's inputs X says what a change D of its kernel does to its outputs: the squared error is the trace of
D'HD. Rounding, pruning, refitting and sensitivities are chosen by it.
"""

from keras_mot.second_order.matrices import WeightMatrices, matrices_of, thinned
from keras_mot.second_order.moments import Moments, gather_moments, visit_in_order
from keras_mot.second_order.parts import parts_of
from keras_mot.second_order.solving import (
    Solved,
    are_few,
    damped,
    inverse_factor,
    least_squares,
    solved_in_place,
    warn_of_few_samples,
)
from keras_mot.second_order.walking import freeing, largest_cut

__all__ = [
    "Moments",
    "Solved",
    "WeightMatrices",
    "are_few",
    "damped",
    "freeing",
    "gather_moments",
    "inverse_factor",
    "largest_cut",
    "least_squares",
    "matrices_of",
    "parts_of",
    "solved_in_place",
    "thinned",
    "visit_in_order",
    "warn_of_few_samples",
]
