"""Views for fitting: pixel rays, masks, the visual hull, normalisation of captures."""
