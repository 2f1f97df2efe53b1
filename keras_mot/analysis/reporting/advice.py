"""What a reader should know of a result, and what to do about it."""

from keras_mot.analysis.plots.style import in_bytes, in_time, is_share
from keras_mot.analysis.reporting.contents import Advice
from keras_mot.analysis.reporting.words import SHORT, difference, told

_POINT, _TENTH = 0.01, 0.1
_ROUNDING = 1e-9  # 0.91 - 0.9 is more than 0.01 in binary
_CLIPPED, _UNUSED = 0.005, 0.25
_NEAR = 0.95  # of the values of a tensor are the same integers, where kernels round as the simulation does
_FEW = 500  # samples
_WORTH_PACKING = 20_000  # bytes


def advice_for(parts: dict) -> tuple[Advice, ...]:
    """The `Advice` that follows from the fields of a `ModelReport`, the serious first."""
    found = [
        *_of_quality(**_some(parts, "variants", "candidates", "metric_name", "greater_is_better", "samples")),
        *_of_sizes(**_some(parts, "variants", "kernels")),
        *_of_speed(**_some(parts, "variants", "in_floats")),
        *_of_integers(**_some(parts, "ranges", "drift", "in_floats")),
    ]
    return tuple(sorted(found, key=lambda each: not each.serious))


def _some(parts, *names):
    return {name: parts[name] for name in names}


def _of_quality(variants, candidates, metric_name, greater_is_better, samples):
    before, after = variants[0], variants[-1]
    if not metric_name or before.metric is None or after.metric is None or before is after:
        return
    sign = 1 if greater_is_better else -1
    lost = sign * (before.metric - after.metric)
    allowed = (_POINT if is_share(metric_name) else _TENTH * abs(before.metric)) + _ROUNDING
    name = metric_name.split(" of ")[0]
    if after.collapsed or not lost <= allowed:
        way = "Ask for less (fewer zeros, more values, more bits), or train longer."
        kept = [each for each in variants[:-1] if each.metric is not None and not each.collapsed]
        kept = [each for each in kept if each is not before and sign * (before.metric - each.metric) <= allowed]
        if kept:
            best = min(kept, key=lambda each: each.zipped_bytes)
            way += f" Or take '{best.name}': {told(best.metric, metric_name)}, {in_bytes(best.zipped_bytes)} zipped."
        costs = f"It costs {difference(before.metric, after.metric, metric_name)} of {name}."
        yield Advice(costs if lost == lost else f"The {name} of the result is no number.", way, after.collapsed)
    for output in after.metrics:
        value, was = after.metrics[output], before.metrics.get(output)
        if was is not None and sign * (was - value) > max(allowed, lost):
            yield Advice(
                f"Output '{output}' loses more than the mean tells: {told(was, metric_name)} before, "
                f"{told(value, metric_name)} after.",
                "Judge the model by each of its outputs.",
            )
    if 0 < samples < _FEW:
        yield Advice(
            f"The {name} was computed over {samples:,} samples alone.",
            "Measure on more before you decide by small differences.",
        )


def _of_sizes(variants, kernels):
    before, after = variants[0], variants[-1]
    zeros = after.sparsity >= 0.3 and after.weights == "integer"
    if before is not after and zeros and after.bytes > max(2 * after.zipped_bytes, _WORTH_PACKING):
        yield Advice(
            f"The file takes {in_bytes(after.bytes)} on the device, and {in_bytes(after.zipped_bytes)} zipped: LiteRT "
            "stores the zeros of integers.",
            "Download it compressed: app stores and web servers do that, and `keras-mot pack` makes it smaller still.",
        )
    for kernel in kernels:
        if not kernel.finite:
            yield Advice(
                f"'{kernel.name}' holds NaN or infinite values.",
                "Training has diverged: go back to the last good checkpoint, and lower the learning rate.",
                True,
            )
        if kernel.after.size > 1 and kernel.after.zeros == kernel.after.size:
            yield Advice(
                f"'{kernel.name}' holds nothing but zeros: what comes after it does not depend on the inputs.",
                "Leave this layer out of pruning, or take the layer out of the model.",
                True,
            )
    same = [each for each in kernels if each.before is not None and each.after.bytes >= each.before.bytes > 4096]
    same = [each for each in same if each.after.sparsity < 0.3 and each.after.unique_values > 256]
    smaller = any(each.before is not None and each.after.bytes < each.before.bytes for each in kernels)
    if same and smaller:
        names = ", ".join(f"'{each.name}'" for each in same[:3]) + (" and others" if len(same) > 3 else "")
        yield Advice(
            f"{names} stayed as large as before ({in_bytes(sum(each.after.bytes for each in same))} in all).",
            "See below what stayed in floats, and why.",
        )


def _of_speed(variants, in_floats):
    before, after = variants[0], variants[-1]
    if before is after or not before.latency_ms or not after.latency_ms:
        return
    if max(before.latency_ms, after.latency_ms) < SHORT:
        return
    if after.latency_ms > 1.1 * before.latency_ms:
        why = "What stays in floats is converted back and forth. " if in_floats else ""
        yield Advice(
            f"Where it was measured, it is slower: {in_time(after.latency_ms)}, not {in_time(before.latency_ms)}.",
            f"{why}Time it on the device that it is for: processors differ in what they have integer kernels for.",
        )
    elif after.latency_ms > 0.9 * before.latency_ms and after.sparsity > 0.3 and after.weights != "integer":
        yield Advice(
            "Zeros and shared values alone make a file smaller, not faster.",
            "Quantize it, or remove whole channels, if it should be faster.",
        )


def _of_integers(ranges, drift, in_floats):
    unused = [row for row in ranges if not row.fixed and row.used < _UNUSED]
    if unused:
        row = min(unused, key=lambda each: each.used)
        yield Advice(
            f"'{row.name}' uses {row.used:.0%} of its range: most of its integers stand for values that do not occur.",
            "Calibrate on data such as these, or with an estimator that leaves out rare values, such as `Percentile`.",
        )
    if drift is not None:
        far = [row for row in drift.tensors if row.within_one < _NEAR]
        if far:
            yield Advice(
                f"From '{far[0].name}' on, the file computes other integers than the model: {far[0].within_one:.1%} "
                "are at most one step apart.",
                "Compare the outputs of both before you trust either; report it with the model, if you can.",
                True,
            )
    if in_floats:
        yield Advice(
            f"{len(in_floats)} operator{'s' if len(in_floats) > 1 else ''} of the file compute"
            f"{'' if len(in_floats) > 1 else 's'} in floats.",
            "The reasons are below. A target that takes integers alone needs `strict=True`, which refuses such a file.",
        )
    clipped = sorted((row for row in ranges if row.clipped > _CLIPPED and not row.fixed), key=lambda row: -row.clipped)
    if clipped:
        yield Advice(
            f"'{clipped[0].name}' clips {clipped[0].clipped:.1%} of the values that these data have there"
            + (f", and so do {len(clipped) - 1} others to a lesser degree." if len(clipped) > 1 else "."),
            "If accuracy fell, calibrate on more, and more typical, data; some estimators clip rare values on purpose.",
        )
