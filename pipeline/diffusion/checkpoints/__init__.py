"""Files of weights: found, told apart, and read without running code."""
