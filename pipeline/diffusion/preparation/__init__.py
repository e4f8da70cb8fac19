"""From a photo to the centred cut-out that the models expect."""
