"""Surfaces from photos without masks: plane-sweep stereo with TSDF fusion, or a radiance volume."""
