"""Cameras for photos that have none, by structure from motion."""
