"""What each preset is for, in one line."""

PRESET_NOTES = {
    "float16": "weights of 16 bits: half the size, nearly the same outputs",
    "dynamic-range": "large weights of 8 bits beside float activations: up to a quarter of the size",
    "int8": "integers after training: up to a quarter of the size, in seconds",
    "int8-qat": "integers, trained: where int8 costs accuracy",
    "sparse-int8": "80 % zeros, then integers, trained",
    "clustered-int8": "32 values, then integers, trained",
    "accuracy": "integers, trained, with the float model as the teacher",
    "balanced": "50 % zeros, then integers, trained",
    "size": "80 % zeros, 16 values, then integers, trained",
    "deep-compression": "98 % zeros, 8 values, then integers, trained: for much larger networks than the task needs",
}
