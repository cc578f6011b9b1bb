"""How fast: training, decoding."""
