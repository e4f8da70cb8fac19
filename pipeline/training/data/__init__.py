"""Training data: objects, rendered samples, stores of them, composed photos."""
