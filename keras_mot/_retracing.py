"""TensorFlow's warnings of retracing, where there is no loop to repair: each model is a function of its own."""

import contextlib
import logging

_MESSAGE = "triggered tf.function retracing"


@contextlib.contextmanager
def without_retracing_warnings():
    """Context in which TensorFlow does not warn that functions are traced again; what else it logs stays.

    It counts the functions of all models as one, because they come from the same lines of Keras.
    """
    logger = logging.getLogger("tensorflow")

    def keeps(record):
        return _MESSAGE not in record.getMessage()

    logger.addFilter(keeps)
    try:
        yield
    finally:
        logger.removeFilter(keeps)
