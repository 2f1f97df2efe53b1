"""Weight clustering: a few shared values for each weight tensor."""

from keras_mot.clustering.callbacks import ClusteringSummaries
from keras_mot.clustering.centroids import (
    CentroidInitialization,
    DensityBased,
    ExactKMeans,
    KMeansPlusPlus,
    Linear,
    Random,
)
from keras_mot.clustering.cluster import cluster_scope, cluster_weights, strip_clustering
from keras_mot.clustering.config import ClusteringConfig
from keras_mot.clustering.methods import ClusteringMethod, DifferentiableKMeans, SharedValues
from keras_mot.clustering.report import ClusteredWeight, ClusteringReport, clustering_report

__all__ = [
    "CentroidInitialization",
    "ClusteringConfig",
    "ClusteringMethod",
    "ClusteringReport",
    "ClusteringSummaries",
    "DensityBased",
    "DifferentiableKMeans",
    "ExactKMeans",
    "KMeansPlusPlus",
    "Linear",
    "Random",
    "SharedValues",
    "cluster_scope",
    "cluster_weights",
    "clustering_report",
    "strip_clustering",
]
