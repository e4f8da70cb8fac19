"""Edits against known truths: cases, rows and scores."""
