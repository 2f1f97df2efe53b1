"""The Keras model that computes as its integer form will."""
