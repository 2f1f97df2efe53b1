"""What changes a quantized model so that it loses less."""
