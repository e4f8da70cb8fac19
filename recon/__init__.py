"""Surfaces from posed views: hull, NeuS-type fit, mesh, texture, export, mesh metrics."""
