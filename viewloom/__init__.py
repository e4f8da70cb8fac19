"""viewloom: one photo, a few photos or a posed capture in; consistent views and a textured GLB out."""

__version__ = "0.1.0"
