"""What a compressed model may cost: `Budget`."""

import dataclasses
import math

import keras

from keras_mot._config import Config
from keras_mot._numbers import make_plain
from keras_mot.recipes.fine_tuning import check_number

_LIMITS = {"bytes": "bytes", "zipped": "bytes, zipped", "latency_ms": "ms", "drop": ""}
_SHARES = ("accuracy", "f1", "precision", "recall", "auc")  # metrics from 0 to 1
_ROUNDING = 1e-9  # 0.99 - 0.98 is more than 0.01 in binary


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class Budget(Config):
    """The most that a compressed model may cost. At least one limit is given; all that are given hold together.

    With a limit of size or latency, the best model within the limits is the most accurate one; with `drop` alone, it is
    the smallest, zipped.

    Args:
        bytes: of the exported file, as it is stored.
        zipped: bytes of a zip archive (DEFLATE, level 9) that holds the file.
        latency_ms: milliseconds for one sample in the runtime on this machine, on one thread.
        drop: how much worse than the float file's the metric may be, in its own unit: 0.01 is a point of accuracy.

    Raises:
        TypeError: if a limit is no number.
        ValueError: if there is no limit, or one is not above 0 (`drop`: below 0).

    Example:

    ```python
    Budget(zipped=40_000, drop=0.01)
    ```
    """

    bytes: int | None = None
    zipped: int | None = None
    latency_ms: float | None = None
    drop: float | None = None

    def __post_init__(self):
        make_plain(self)
        if all(getattr(self, name) is None for name in _LIMITS):
            raise ValueError(f"A budget needs at least one limit of: {', '.join(_LIMITS)}.")
        for name in _LIMITS:
            value = getattr(self, name)
            if value is None:
                continue
            check_number(name, value, 0.0, math.inf)
            if name != "drop" and not value:
                raise ValueError(f"`{name}` should be above 0; received {value}.")
            if name in ("bytes", "zipped") and value < 1:
                raise ValueError(f"`{name}` is a number of bytes, and no share of any; received {value}.")

    def check_metric(self, name: str) -> None:
        """Raises a `ValueError` if `drop` is as large as a metric of this name can be: it would be no limit.

        Args:
            name: of the metric.
        """
        words = name.removesuffix("_score").split("_")
        if self.drop is not None and self.drop >= 1 and (words[-1] in _SHARES or name.startswith("top")):
            raise ValueError(
                f"A drop of {self.drop} is no limit to the metric '{name}', which is 1 at most: one point of a hundred "
                "is `drop=0.01`."
            )

    @property
    def by_size(self) -> bool:
        """Whether the limits say how small or fast a model must be, so that the most accurate one is the best."""
        return any(limit is not None for limit in (self.bytes, self.zipped, self.latency_ms))

    def excesses(self, costs: "dict[str, float]") -> dict[str, float]:
        """By how much of each limit a model is above it; 0 where it keeps to it.

        Args:
            costs: dictionary from "bytes", "zipped", "latency_ms" and "drop" to what a model costs.

        Returns:
            Dictionary from the limits that are given to shares of these; of a `drop` of 0, of one hundredth. Infinite
            where a model has no such cost.
        """
        found = {}
        for name in _LIMITS:
            limit = getattr(self, name)
            if limit is None:
                continue
            cost = costs.get(name)
            if cost is None or math.isnan(cost):
                found[name] = math.inf
            else:
                above = cost - limit - _ROUNDING * max(1.0, limit)
                found[name] = max(0.0, above) / (limit or 0.01)
        return found

    def is_met(self, costs: "dict[str, float]") -> bool:
        """Whether a model keeps to all limits. Arguments as of `excesses`."""
        return not any(self.excesses(costs).values())

    def __str__(self):
        given = {name: getattr(self, name) for name in _LIMITS if getattr(self, name) is not None}
        texts = [
            f"a drop of at most {value:g}" if name == "drop" else f"at most {value:,g} {_LIMITS[name]}"
            for name, value in given.items()
        ]
        return ", ".join(texts)
