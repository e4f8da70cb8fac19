"""Surfaces bound to skeletons or boxes, and posed by them."""
