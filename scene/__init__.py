"""The shared vocabulary: cameras, view sets and their file formats, ray casting, procedural objects, image metrics.

Imports nothing of the other rooms.
"""
