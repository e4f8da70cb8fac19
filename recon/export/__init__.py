"""Assets on disk: GLB, OBJ, PLY, STL and USDZ, written and checked."""
