"""One photo to posed views, without a mesh: a capture folder that nerfstudio opens.

    python examples/03_views_only.py               # ten seconds on two cores

The first view is the photo itself; the world is the photo's, which stands at azimuth 0.
"""

from pathlib import Path

import numpy as np

from viewloom import Image2MeshSettings, RingSettings, SamplingSettings, ViewSet, ViewsSettings, make_views

OUT = Path("out/examples/views_only")

# Six views 10 degrees above the horizon, the first one 30 degrees from the photo.
rings = RingSettings(views=(6,), elevations_deg=(10.0,), offsets_deg=(30.0,))
# Steps, guidance and strength are those that the checkpoint asks for, since none is given.
settings = Image2MeshSettings(views=ViewsSettings(rings=rings, sampling=SamplingSettings(seed=0)))
(result,) = make_views([Path("docs/demo/photo.png")], OUT, settings)
if result.error is not None:
    raise result.error

views = ViewSet.load(result.folder / "views")
for view in views:
    x, y, z = view.camera.centre
    azimuth, elevation = np.degrees([np.arctan2(y, x), np.arcsin(z / np.hypot(np.hypot(x, y), z))])
    print(f"{view.name}: azimuth {azimuth:6.1f}, elevation {elevation:5.1f} degrees, weight {view.weight:.2f}")
print(f"capture: {result.folder / 'views'}")
