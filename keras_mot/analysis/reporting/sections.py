"""The sections of the page, from the headline to the settings."""

from keras_mot.analysis import plots
from keras_mot.analysis.plots.style import in_bytes, in_time
from keras_mot.analysis.reporting.contents import ModelReport
from keras_mot.analysis.reporting.markup import Markup, folded, join, name, prose, table, tag
from keras_mot.analysis.reporting.pictures import Pictures
from keras_mot.analysis.reporting.words import NOTHING, told
from keras_mot.export.in_floats import by_layer

_TABLE_ROWS = 400
_FOLDED_FROM = 12  # rows
_SHOWN = 8  # kernels with pictures; the others are folded
_SLOWEST = 20  # operators


def summary(report: ModelReport) -> Markup:
    """The numbers that matter, and what to know of them."""
    before, after = report.before, report.after
    alone = len(report.variants) == 1
    cards = [
        _card("Download, zipped", in_bytes(after.zipped_bytes), None if alone else in_bytes(before.zipped_bytes)),
        _card("As stored", in_bytes(after.bytes), None if alone else in_bytes(before.bytes)),
    ]
    if after.metric is not None and report.metric_name:
        was = None if alone or before.metric is None else told(before.metric, report.metric_name)
        cards.append(
            _card(report.metric_name.split(" of ")[0].capitalize(), told(after.metric, report.metric_name), was)
        )
    if after.arena_bytes is not None:
        cards.append(_card("Arena", in_bytes(after.arena_bytes), None))
    if after.latency_ms is not None:
        was = None if alone or before.latency_ms is None else in_time(before.latency_ms)
        cards.append(_card("Time of a sample", in_time(after.latency_ms), was))
    cards.append(_card("Zeros in kernels", f"{after.sparsity:.0%}", None if alone else f"{before.sparsity:.0%}"))
    lines = join([tag("p", line) for line in report.details])
    return join([tag("div", *cards, class_="cards"), lines, _advice(report)])


def _card(label, value, was):
    below = "" if was is None else tag("div", f"before: {was}", class_="was")
    return tag("div", tag("div", label, class_="label"), tag("div", value, class_="value"), below, class_="card")


def _advice(report):
    if not report.advice:
        return tag("p", "Nothing was found that stands in the way of using it.", class_="fine")
    rows = [
        tag("li", tag("strong", prose(each.what)), prose(each.then), class_="serious" if each.serious else None)
        for each in report.advice
    ]
    return tag("ul", *rows, class_="advice")


def stages(report: ModelReport, pictures: Pictures) -> Markup:
    """What each stage gave, and accuracy against size."""
    if len(report.variants) < 2 and len(report.candidates) < 2:
        return Markup()
    metric = (report.metric_name or "").split(" of ")[0]
    columns = {
        "": [variant.name + (" (!)" if variant.collapsed else "") for variant in report.variants],
        "zipped": [in_bytes(variant.zipped_bytes) for variant in report.variants],
        "stored": [in_bytes(variant.bytes) for variant in report.variants],
    }
    for label, attribute in (("by brotli", "brotli_bytes"), ("arena", "arena_bytes")):
        amounts = [getattr(variant, attribute) for variant in report.variants]
        if any(amounts):
            columns[label] = [NOTHING if amount is None else in_bytes(amount) for amount in amounts]
    if report.metric_name and any(variant.metric is not None for variant in report.variants):
        columns[metric] = [told(variant.metric, metric) for variant in report.variants]
        for output in report.variants[0].metrics:
            columns[f"'{output}'"] = [told(variant.metrics.get(output), metric) for variant in report.variants]
    if any(variant.keras_metric is not None for variant in report.variants):
        columns["in Keras"] = [told(variant.keras_metric, metric) for variant in report.variants]
    columns["zeros"] = [f"{variant.sparsity:.0%}" for variant in report.variants]
    columns["values"] = [f"{variant.values:,}" for variant in report.variants]
    if any(variant.latency_ms is not None for variant in report.variants):
        columns["time"] = [NOTHING if each.latency_ms is None else in_time(each.latency_ms) for each in report.variants]
    if any(variant.seconds for variant in report.variants):
        columns["trained, s"] = [_or_dash(variant.seconds, ".0f") for variant in report.variants]
    rows = list(zip(*columns.values(), strict=True))
    parts = [table(list(columns), rows, marked=len(rows) - 1), _front(report, pictures), _tried(report)]
    how = "zeros: share in kernels; values: most different ones in a kernel."
    if any(variant.collapsed for variant in report.variants):
        how += " (!): it lost more than a tenth of the metric, or more than doubled the error."
    return join([*parts, tag("p", how, class_="how")])


def _front(report, pictures):
    points = [
        plots.Point(each.name, each.zipped_bytes, each.metric, each.group, each.chosen) for each in report.candidates
    ]
    try:
        drawn = plots.front(points, report.metric_name or "", "bytes, zipped", report.greater_is_better)
    except ValueError:  # no candidate has a metric
        return Markup()
    caption = "All that was tried. The circle is what this report is about; no other point beats those on the line."
    return pictures.figure(drawn, f"{report.metric_name} against size of {len(points)} candidates", caption)


def _tried(report):
    """All candidates, where there are others than the variants."""
    if {each.name for each in report.candidates} <= {each.name for each in report.variants}:
        return Markup()
    listed = sorted(report.candidates, key=lambda each: each.zipped_bytes)
    rows = [
        (each.name, each.group, in_bytes(each.zipped_bytes), told(each.metric, report.metric_name)) for each in listed
    ]
    places = [place for place, each in enumerate(listed) if each.chosen]
    headers = ("tried", "by", "zipped", (report.metric_name or "").split(" of ")[0])
    return folded(f"All {len(rows)} that were tried", table(headers, rows, words=2, marked=next(iter(places), None)))


def layers(report: ModelReport, pictures: Pictures) -> Markup:
    """Each kernel before and after."""
    kernels = report.kernels
    if not kernels:
        return Markup()
    rows = []
    for kernel in kernels[:_TABLE_ROWS]:
        before, after = kernel.before, kernel.after
        rows.append(
            (
                name(kernel.name),
                "\u00d7".join(map(str, after.shape)),
                _both(before, after, lambda each: f"{each.sparsity:.0%}"),
                _both(before, after, lambda each: f"{each.unique_values:,}"),
                _both(before, after, lambda each: each.dtype),
                _both(before, after, lambda each: f"{each.entropy:.1f}"),
                _both(before, after, lambda each: in_bytes(each.bytes)),
            )
        )
    headers = ("kernel", "shape", "zeros", "values", "type", "bits needed", "size")
    found = table(headers, rows)
    parts = []
    known = [kernel for kernel in kernels if kernel.before is not None]
    if known:
        drawn = plots.layer_bytes(
            {kernel.name: kernel.before.bytes for kernel in known},
            {kernel.name: kernel.after.bytes for kernel in known},
        )
        caption = "Size of the largest kernels in the file, before (grey) and after (blue)."
        parts.append(pictures.figure(drawn, "bytes of each kernel before and after", caption))
    left = "" if len(kernels) <= _TABLE_ROWS else f" The first {_TABLE_ROWS} of {len(kernels):,} kernels."
    how = (
        "Before → after, of weights of two and more dimensions, as they stand in the files. Bits needed: entropy, what "
        f"a value needs at least to say which of the different values it is.{left}"
    )
    shown = folded(f"Table of {len(rows)} kernels", found) if len(rows) > _FOLDED_FROM else found
    return join([*parts, shown, tag("p", how, class_="how")])


def weights(report: ModelReport, pictures: Pictures, most: int) -> Markup:
    """Histograms and masks of the largest kernels."""
    kernels = sorted(report.kernels, key=lambda kernel: -kernel.after.size)[:most]
    chosen = [kernel for kernel in report.kernels if any(kernel is each for each in kernels)]
    if not chosen:
        return Markup()
    boxes, large = {}, {id(kernel) for kernel in kernels[:_SHOWN]}
    for kernel in chosen:
        stats, seen = kernel.after, kernel.histogram
        notes = [f"{stats.size:,} weights", f"{stats.sparsity:.0%} zeros", f"{stats.unique_values:,} values"]
        if seen.step is not None:
            scales = "one scale" if seen.scales == 1 else f"{seen.scales:,} scales"
            notes.append(f"{kernel.bits} bits, {scales}")
        drawn = pictures.figure(plots.weights(seen), f"histogram of {kernel.name}")
        mask = Markup()
        if kernel.picture is not None and stats.sparsity >= 0.05:
            mask = pictures.mask(kernel.picture, f"where weights of {kernel.name} are left")
        title = tag("h3", name(kernel.name))
        boxes[id(kernel)] = tag("div", title, tag("p", ", ".join(notes)), drawn, mask, class_="kernel")
    left = len(report.kernels) - len(chosen)
    more = f" The {len(chosen)} largest kernels; {left} smaller ones are in the table above." if left else ""
    how = (
        "Weights that are not zero, before and after. Where at most 64 different values are left, each is a line as "
        "high as it is frequent. Ticks below are the levels that the integers stand for, of several scales those of "
        f"the median one. The strip shows in blue where weights are left; elsewhere they are zero.{more}"
    )
    shown = tag("div", *(box for key, box in boxes.items() if key in large), class_="kernels")
    rest = tag("div", *(box for key, box in boxes.items() if key not in large), class_="kernels")
    more = folded(f"{len(chosen) - len(large)} smaller ones", rest) if len(chosen) > len(large) else ""
    return join([tag("p", how, class_="how"), shown, more])


def ranges(report: ModelReport, pictures: Pictures) -> Markup:
    """Ranges of activations against what the data have there."""
    if not report.ranges:
        return Markup()
    rows = [
        (
            name(row.name),
            row.bits,
            f"{row.low:.4g} … {row.high:.4g}",
            f"{row.seen_low:.4g} … {row.seen_high:.4g}",
            f"{row.clipped:.2%}",
            f"{row.used:.0%}",
        )
        for row in report.ranges
    ]
    headers = ("rounded at", "bits", "range of the integers", "values seen", "clipped", "range used")
    shown = "" if len(rows) <= 24 else f"The 24 of {len(rows)} that clip most, or use least of their range. "
    caption = (
        f"{shown}Each band is the range of an integer, from the lowest to the highest. Thick: where 99.8% of the "
        "values lie; thin: where all do. What lies beyond the band is clipped."
    )
    drawn = pictures.figure(plots.ranges(report.ranges), "ranges of activations against values", caption)
    return join([drawn, folded(f"Table of {len(rows)} ranges", table(headers, rows))])


def drift(report: ModelReport, pictures: Pictures) -> Markup:
    """How far the file moves from the model."""
    if report.drift is None:
        return Markup()
    rows = [
        (name(row.name), f"{row.equal:.2%}", f"{row.within_one:.2%}", f"{row.largest:,}")
        for row in report.drift.tensors
    ]
    shown = "" if len(rows) <= 24 else f"The 24 of {len(rows)} tensors that are least equal. "
    caption = (
        f"{shown}The share of values that are the same integer in the file, on LiteRT's reference kernels, and in the "
        "model that simulates it."
    )
    drawn = pictures.figure(plots.drift(report.drift), "drift of each tensor", caption)
    headers = ("tensor", "same integer", "at most one step apart", "largest difference, steps")
    return join([drawn, folded(f"Table of {len(rows)} tensors", table(headers, rows))])


def sensitivity(report: ModelReport, pictures: Pictures) -> Markup:
    """What each layer alone would lose."""
    found = report.sensitivity
    if found is None or not len(found):
        return Markup()
    caption = f"{found.measure} of the outputs when one layer alone is changed, on {found.samples:,} samples."
    drawn = pictures.figure(plots.sensitivity(found), "sensitivity of each layer", caption)
    rows = [
        (name(row.name), row.technique.replace("_", " "), f"{row.setting:g}", f"{row.loss:.3g}")
        for row in found.worst(30)
    ]
    headers = ("layer", "technique", "setting", "loss")
    return join([drawn, folded(f"The {len(rows)} worst", table(headers, rows, words=2))])


def times(report: ModelReport, pictures: Pictures) -> Markup:
    """Time of each file, and what the last one computes."""
    known = {variant.name: variant.latency_ms for variant in report.variants if variant.latency_ms is not None}
    parts = []
    if known:
        caption = f"Time of one sample: {report.runtime}."
        parts.append(pictures.figure(plots.latencies(known), "time of a sample by file", caption))
    if report.operators:
        parts.append(tag("h3", f"Operators of {report.after.file or report.after.name}"))
        parts += _operators(report.operators, report.operator_times)
    return join(parts)


def _operators(operators, times):
    """How often the file has each operator; how long they take, kind by kind, and the slowest of them."""
    if not times:
        rows = [(operator, kind or NOTHING, f"{count:,}") for operator, kind, count in operators]
        return [table(("operator", "computes", "how many"), rows, words=2)]
    spent, untimed = {}, {}
    for row in times:
        spent.setdefault(f"{row.operator} {row.computes}", []).append(row.milliseconds)
        if row.milliseconds is None:
            untimed.setdefault((row.operator, row.reason.rstrip(".")), []).append(row)
    sums = {kind: sum(each or 0.0 for each in own) for kind, own in spent.items()}
    whole = sum(sums.values()) or 1.0
    rows = [
        (kind, *((in_time(total), f"{total / whole:.0%}") if total else (NOTHING, NOTHING)), f"{len(spent[kind]):,}")
        for kind, total in sorted(sums.items(), key=lambda item: -item[1])
    ]
    listed = table(("operator", "time", "share", "how many"), rows)
    slowest = sorted((row for row in times if row.milliseconds), key=lambda row: -row.milliseconds)
    rows = [
        (row.operator, in_time(row.milliseconds), f"{row.milliseconds / whole:.0%}", name(row.layer))
        for row in slowest[:_SLOWEST]
    ]
    left = "".join(
        f" {len(rows)} of {operator} {'have' if len(rows) > 1 else 'has'} no time: {reason}."
        for (operator, reason), rows in untimed.items()
    )
    how = (
        f"Each operator was timed by itself, several in a row; all together {in_time(whole)}. What the runtime "
        f"fuses, or finds in the cache, is not seen: the sum says where the time goes, not how much it is.{left}"
    )
    title = f"The {_SLOWEST} slowest operators" if len(slowest) > _SLOWEST else f"All {len(rows)} operators with a time"
    detail = folded(title, table(("operator", "time", "share", "layer"), rows))
    return [listed, detail, tag("p", how, class_="how")]


def floats(report: ModelReport) -> Markup:
    """What stayed in floats, and what techniques left alone, with the reasons."""
    parts = []
    if report.in_floats:
        rows = [(operators, name(layer), reason) for operators, layer, reason in by_layer(report.in_floats)]
        parts.append(table(("operators", "layer", "why they are in floats"), rows, words=3))
    elif report.after.weights == "integer":
        parts.append(tag("p", "All between input and output is computed in integers."))
    if report.left_alone:
        rows = [(name(path), technique, reason) for technique, path, reason in report.left_alone]
        listed = table(("weight", "left alone by", "why"), rows, words=3)
        title = f"{len(rows)} weights that pruning or clustering left alone"
        parts.append(folded(title, listed) if len(rows) > _FOLDED_FROM else join([tag("h3", "Left alone"), listed]))
    return join(parts)


def settings(report: ModelReport) -> Markup:
    """What it takes to repeat it."""
    short = {key: value for key, value in report.settings.items() if "\n" not in value.strip()}
    long = {key: value for key, value in report.settings.items() if "\n" in value.strip()}
    pairs = [join([tag("dt", key), tag("dd", value)]) for key, value in short.items()]
    blocks = [folded(prose(key), tag("pre", tag("code", value.strip()))) for key, value in long.items()]
    missing = [
        tag("li", tag("strong", f"{what}: "), prose(reason.rstrip(".")), ".") for what, reason in report.missing.items()
    ]
    parts = [tag("dl", *pairs), *blocks]
    if missing:
        parts += [tag("h3", "Not in this report"), tag("ul", *missing, class_="how")]
    return join(parts)


def _both(before, after, shown):
    now = shown(after)
    was = None if before is None else shown(before)
    if was is None or was == now:
        return now
    return join([tag("span", f"{was} → ", class_="was-now"), now])


def _or_dash(value, form):
    return NOTHING if value is None else format(value, form)
