"""Float files whose dense layers and embeddings have integers for weights, in kernels with dynamic ranges."""
