"""What a run says of its files: which to take, in the last lines of a report, and what a device needs."""

from typing import Any

from keras_mot.recipes.result import CompressionResult

_MANY_ZEROS = 0.1


def closing_lines(result: CompressionResult) -> list[str]:
    """Sentences that name the smallest files, why they are, the best one, and the last one."""
    stored = min(result.stages, key=lambda stage: stage.bytes)
    zipped = min(result.stages, key=lambda stage: stage.zipped_bytes)
    lines = [
        f"Smallest as stored: {stored.artifact.name}, {stored.bytes:,} bytes{_why_stored(stored)}.",
        f"Smallest zipped: {zipped.artifact.name}, {zipped.zipped_bytes:,} bytes{_why_zipped(zipped)}.",
    ]
    return [*lines, _best_line(result), f"The last file: {result.artifact}"]


def _why_stored(stage):
    return ": float weights are stored without their zeros" if stage.sparse_encoding else ""


def _why_zipped(stage):
    """What zip finds in a file that stores all of its weights."""
    if stage.weights != "integer" or stage.sparsity < _MANY_ZEROS:
        return ""
    return (
        f": it stores each weight, the {stage.sparsity:.0%} zeros too, for LiteRT has no sparse integers; zip takes "
        "zeros and repeated values out"
    )


def _best_line(result):
    try:
        best = result.best()
    except ValueError as error:
        return str(error)
    return (
        f"Best: {best.artifact.name}, the smallest zipped whose {result.metric_name} ({best.metric:.4f}) is near the "
        f"float file's ({result.stages[0].metric:.4f}); see `result.best(max_drop)`."
    )


def on_device(exported: Any) -> str:
    """What a microcontroller needs for a file, for a line of progress; nothing of other files."""
    arena = getattr(exported, "arena_bytes", None)
    return "" if arena is None else f"; arena {arena:,} bytes, {exported.verification}"
