"""Editing of captures: controls, inversion, query consolidation."""
