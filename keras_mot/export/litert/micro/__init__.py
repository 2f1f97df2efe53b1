"""Files for LiteRT for Microcontrollers (TFLM): what runs them, proves them, and says what they need on a device."""
