"""The shared vocabulary: cameras, view sets and their file formats, meshes, ray casting, volume rendering.

Imports nothing of the other rooms.
"""
