"""Textures: charts, packing, visibility, blending of views, baking."""
