"""Zero-to-Hero sampling beside plain sampling: the same photo, cameras and noise, one picture of both.

    python examples/06_zero_to_hero.py             # a minute on two cores; --quick for a few steps

Zero-to-Hero changes how views are sampled, not the weights; docs/filtering.md says what it is worth here.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from viewloom import SamplingSettings, generate_views, load_view_model, prepare_photo

OUT = Path("out/examples/zero_to_hero.png")

model = load_view_model("weights/nano").to(torch.device("cpu"))
photo = prepare_photo(Path("docs/demo/photo.png")).resized(model.image_size)

# Azimuth from the photo, elevation, radius; radians.
orbits = torch.tensor([[np.pi / 3 * k, 0.2, 1.5] for k in range(1, 4)])
plain = SamplingSettings(steps=2 if "--quick" in sys.argv else 26, strength=1.0, guidance=1.0)
rows = []
for filtering in ("none", "amf" if "--quick" in sys.argv else "zero-to-hero"):
    settings = SamplingSettings(steps=plain.steps, strength=1.0, guidance=1.0, filtering=filtering)
    views = generate_views(model, photo, orbits, settings, elevation_deg=18.0)
    rows.append(np.concatenate([photo, *views.rgba], axis=1))
    print(f"filtering {filtering}: {len(views.rgba)} views of {model.image_size} pixels")

OUT.parent.mkdir(parents=True, exist_ok=True)
Image.fromarray(np.concatenate(rows)).save(OUT)
print(f"picture: {OUT}")
