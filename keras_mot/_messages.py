"""What error messages are made of: what was received, in few words, and what may have been meant."""

import difflib
import reprlib
from collections.abc import Iterable
from typing import Any


def describe(value: Any) -> str:
    """What was received: shape and type of an array, the beginning of anything else, never the numbers of an array.

    Args:
        value: anything, such as data in the place of another argument.

    Returns:
        A text of at most some hundred characters.
    """
    return _SHORT.repr(value)


def nearest(word: str, words: Iterable[str], count: int = 1) -> str:
    """A hint at what may have been meant, to follow a message; empty if nothing is near.

    Args:
        word: what was given.
        words: what could have been.
        count: how many of these to name at most.
    """
    close = [repr(match) for match in difflib.get_close_matches(str(word), list(words), n=count)]
    return f" Did you mean {' or '.join(close)}?" if close else ""


def shortened(text: object, limit: int = 500) -> str:
    """`text` on at most `limit` characters, the middle left out of a longer one."""
    text = str(text)
    if len(text) <= limit:
        return text
    return f"{text[: limit // 2]} ... {text[-(limit // 3) :]}"


class _Short(reprlib.Repr):
    """`repr` of few elements and characters, with words for arrays."""

    def __init__(self):
        super().__init__()
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = 4
        self.maxlevel, self.maxstring, self.maxother = 3, 100, 160

    def repr1(self, x, level):
        shape, dtype = getattr(x, "shape", None), getattr(x, "dtype", None)
        if shape is not None and dtype is not None and not isinstance(x, type):
            kind = str(dtype).removeprefix("torch.")
            if kind.startswith("<dtype:"):  # of TensorFlow
                kind = dtype.name
            return f"an array of shape {tuple(shape)} and type {kind}"
        if isinstance(shape, tuple) and hasattr(x, "columns") and hasattr(x, "iloc"):  # of pandas and its like
            return f"a table of {shape[0]} rows and {shape[1]} columns"
        return super().repr1(x, level)

    def repr_instance(self, x, level):
        try:
            text = repr(x)
        except Exception:  # a `repr` of the user's that fails must not hide what was wrong
            text = f"<{type(x).__name__}>"
        if len(text) > self.maxother:
            text = f"{text[: self.maxother - 20]}... ({type(x).__name__})"
        return text


_SHORT = _Short()
