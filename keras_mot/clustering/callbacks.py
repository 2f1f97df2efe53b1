"""The callback under TFMOT's name: `ClusteringSummaries`."""

from keras_mot.clustering.report import clustering_report
from keras_mot.layers.summaries import TransformSummaries


class ClusteringSummaries(TransformSummaries):
    """Writes the different values, and the entropy, of each clustered weight, and the epoch's logs, for TensorBoard.

    Args:
        log_dir: directory of the event files; they are written to `log_dir/metrics`.
        cluster_update_freq: `"epoch"`, or a number of batches after which the values are also written, `"batch"` for
            each. Its name in TFMOT; `update_freq` is the same here.
        update_freq: the same; what is written more often counts.
        **others: other arguments of `keras.callbacks.TensorBoard`, which have no effect, and are warned of.

    Raises:
        TypeError: if `TensorBoard` has no such argument.
        ValueError: if `log_dir` is not a non-empty path, or `update_freq` is something else.
        ImportError: if the package `tensorboard` is missing.

    Example:

    ```python
    clustered.fit(x, y, callbacks=[ClusteringSummaries("logs")])
    ```
    """

    def __init__(self, log_dir="logs", cluster_update_freq="epoch", update_freq="epoch", **others):
        super().__init__(log_dir, update_freq if cluster_update_freq == "epoch" else cluster_update_freq, **others)

    def values(self):
        """`unique_values/PATH` and `entropy/PATH` of each clustered weight."""
        rows = clustering_report(self.model).clustered
        counts = {f"unique_values/{row.path}": row.unique_values for row in rows}
        return counts | {f"entropy/{row.path}": row.entropy for row in rows}
