"""The headline: how much smaller and faster, and what it cost, in words."""

import math

from keras_mot.analysis.plots.style import in_bytes, in_time, is_share
from keras_mot.analysis.reporting.contents import Variant

NOTHING = "-"
SHORT = 0.02  # milliseconds: calling the runtime takes a good part of it
_SAME = 5e-4  # of an error: differences of less are not told
_SAME_SPEED = 0.1  # times differ by more than that between two runs of the same file


def told(value: float | None, metric_name: str | None) -> str:
    """A value of a metric for people."""
    if value is None:
        return NOTHING
    if not math.isfinite(value):
        return str(value)
    return f"{value:.1%}" if is_share(metric_name) else f"{value:.4g}"


def difference(one: float, other: float, metric_name: str | None) -> str:
    """How far two values of a metric are apart, for people."""
    apart = abs(one - other)
    if is_share(metric_name):
        return f"{apart * 100:.1f} points" if round(apart * 100, 1) != 1 else "1 point"
    return f"{apart:.3g}"


def headline(before: Variant, after: Variant, metric_name: str | None, greater_is_better: bool) -> str:
    """One sentence on what became of the model."""
    size, speed = _size(before, after), _speed(before, after)
    start = f"{size} and {speed}" if speed else size
    return f"The model is {start}{_cost(before, after, metric_name, greater_is_better)}."


def details(
    before: Variant, after: Variant, metric_name: str | None, samples: int, runtime: str, only: bool
) -> tuple[str, ...]:
    """The numbers behind the headline, sentence by sentence.

    Args:
        before: what is compared with.
        after: what it became.
        metric_name: of the metric, or `None`.
        samples: that it was computed over.
        runtime: what was timed, in words.
        only: whether there is one variant alone, and nothing to compare.
    """
    lines = []
    if only:
        lines.append(f"{in_bytes(after.bytes)} as stored, {in_bytes(after.zipped_bytes)} as a zip archive.")
    else:
        lines.append(
            f"Zipped, as for a download: {in_bytes(before.zipped_bytes)} before, {in_bytes(after.zipped_bytes)} after. "
            f"As stored: {in_bytes(before.bytes)} before, {in_bytes(after.bytes)} after."
        )
    if after.brotli_bytes is not None:
        lines[0] += f" By Brotli, as `keras-mot pack` compresses: {in_bytes(after.brotli_bytes)}."
    if after.arena_bytes is not None:
        lines.append(
            f"On a microcontroller it runs in an arena of {in_bytes(after.arena_bytes)}. In TFLM's interpreter: "
            f"{after.verification}. How long it takes there was not measured."
        )
    if metric_name and after.metric is not None:
        line = f"{_capital(metric_name.split(' of ')[0])} over {samples:,} samples, computed by the runtime"
        line = line if after.kind != "keras" else line.replace("the runtime", "Keras")
        both = "" if only or before.metric is None else f"{told(before.metric, metric_name)} before, "
        chance = _chance(after.metric, samples, metric_name)
        lines.append(f"{line}: {both}{told(after.metric, metric_name)}{' after' if both else ''}.{chance}")
    if after.latency_ms is not None and runtime:
        both = "" if only or before.latency_ms is None else f"{in_time(before.latency_ms)} before, "
        short = " Of so short a time, calling the runtime takes a good part." if after.latency_ms < SHORT else ""
        lines.append(
            f"One sample takes {both}{in_time(after.latency_ms)}{' after' if both else ''} ({runtime}).{short}"
        )
    return tuple(lines)


def _size(before, after):
    ratio = before.zipped_bytes / max(after.zipped_bytes, 1)
    if ratio >= 1.05:
        return f"{_times(ratio)} smaller"
    return "as large as before" if ratio > 0.95 else f"{_times(1 / ratio)} larger"


def _speed(before, after):
    if not before.latency_ms or not after.latency_ms or max(before.latency_ms, after.latency_ms) < SHORT:
        return ""
    ratio = before.latency_ms / after.latency_ms
    if abs(math.log(ratio)) <= math.log(1 + _SAME_SPEED):
        return "as fast as before"
    return f"{_times(ratio)} faster" if ratio > 1 else f"{_times(1 / ratio)} slower"


def _times(ratio):
    return f"{ratio:.0f} times" if ratio >= 99.5 else f"{ratio:.1f} times" if ratio >= 1.95 else f"{ratio:.2f} times"


def _cost(before, after, metric_name, greater_is_better):
    if not metric_name or before.metric is None or after.metric is None:
        return "; what that costs in quality was not measured"
    if not math.isfinite(after.metric):
        return f", and its {metric_name} is {after.metric}"
    name, apart = metric_name.split(" of ")[0], after.metric - before.metric
    words = difference(after.metric, before.metric, metric_name)
    if words == "0.0 points" or abs(apart) <= _SAME * abs(before.metric):
        return f", at the same {name}"
    better = (apart > 0) == greater_is_better
    direction = "higher" if apart > 0 else "lower"
    return f"{', and' if better else ', but'} its {name} is {words} {direction}"


def _chance(metric, samples, metric_name):
    """How far an accuracy may be off by chance: two standard errors of a share."""
    if not is_share(metric_name) or not samples or not 0 <= metric <= 1 or "accuracy" not in metric_name:
        return ""
    share = (metric * samples + 1) / (samples + 2)  # so that 100 % of few samples is not taken for sure
    error = 2 * math.sqrt(share * (1 - share) / samples) * 100
    return f" With so many samples, {error:.1f} points either way may be chance."


def _capital(text):
    return text[:1].upper() + text[1:]
