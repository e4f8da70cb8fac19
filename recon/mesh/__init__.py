"""Triangle meshes: marching cubes, cleaning, decimation, topology, scores."""
