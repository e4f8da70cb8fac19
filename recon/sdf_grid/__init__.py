"""The surface fit on the CPU: a narrow-band SDF on a grid, optimised with NeuS rendering by compiled kernels."""
