"""Chooses between the dense and the sparsely encoded file."""

import dataclasses

import numpy as np

from keras_mot._arrays import float_value
from keras_mot.export.litert.litert_file import parameters, parse_model
from keras_mot.export.litert.sparse.encoding import LEAST_SPARSITY
from keras_mot.export.litert.sparse.safety import check_sparse_safety
from keras_mot.export.litert.verification import ExportVerificationError

# The runtime expands sparse weights when it loads them; that should save at least this share of the file.
_WORTHWHILE_SAVING = 0.05


@dataclasses.dataclass(frozen=True)
class Choice:
    """The file that was chosen, its verified error (None if not verified), and why this one."""

    content: bytes
    sparse: bool
    error: float | None
    reason: str


def is_worth_trying(model):
    """Whether any weight of the model has enough zeros to be encoded sparsely."""
    for weight in model.weights:
        if len(weight.shape) < 2:
            continue
        values = float_value(weight)
        if values.size - np.count_nonzero(values) >= LEAST_SPARSITY * values.size:
            return True
    return False


def choose(conversion, mode, verifier):
    """Chooses a file by the user's mode: "auto", True (sparse or an error) or False (dense)."""
    if mode is False:
        return Choice(conversion.dense, False, verifier(conversion.dense), "not asked for")
    problem, error, reason = _try_sparse(conversion, verifier)
    if problem is None:
        return Choice(conversion.sparse, True, error, reason)
    if mode is True:
        raise ValueError(
            f"`sparse_encoding=True` cannot be fulfilled: {problem}. Use sparse_encoding='auto' to fall back "
            f"to a dense file, or False."
        )
    return Choice(conversion.dense, False, verifier(conversion.dense), problem)


def _try_sparse(conversion, verifier):
    """Returns (what speaks against the sparse file or None, its verified error, what speaks for it)."""
    content = conversion.sparse
    if content is None:
        reason = conversion.sparse_failure or "no weight has enough zeros"
        return reason, None, None
    if not any(tensor.sparse_encoding for tensor in parameters(parse_model(content))):
        return "no weight has enough zeros", None, None
    if conversion.dense is not None and len(content) > (1 - _WORTHWHILE_SAVING) * len(conversion.dense):
        sizes = f"{len(content):,} bytes instead of {len(conversion.dense):,}"
        return f"it would not make the file much smaller ({sizes})", None, None
    safety = check_sparse_safety(content)
    if not safety.safe:
        return safety.reason, None, None
    try:
        error = verifier(content, must_load=True)
    except (ValueError, ExportVerificationError) as failure:
        return f"the sparse file does not pass in the runtime: {failure}", None, None
    saving = "" if conversion.dense is None else f" instead of {len(conversion.dense):,}"
    return None, error, f"{len(content):,} bytes{saving}; {safety.reason}"
