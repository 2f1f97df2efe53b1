"""What turns a Keras model into a float `.tflite` file."""
