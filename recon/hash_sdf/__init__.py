"""The surface fit with torch: an SDF on a hash grid, for GPUs."""
