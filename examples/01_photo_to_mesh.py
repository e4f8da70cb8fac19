"""One photo to a textured mesh: the whole way in one call, as `viewloom image2mesh` does it.

    python examples/01_photo_to_mesh.py            # half a minute on two cores; --quick for a rough one

A second run continues where the first stopped, and redoes only what a changed setting touches.
"""

import sys
from pathlib import Path

from viewloom import FitSettings, Image2MeshSettings, MeshSettings, RingSettings, ViewsSettings, image2mesh

OUT = Path("out/examples/photo_to_mesh")

settings = Image2MeshSettings()
if "--quick" in sys.argv:
    settings = Image2MeshSettings(
        views=ViewsSettings(rings=RingSettings(views=(4,), elevations_deg=(10.0,), offsets_deg=(45.0,))),
        fit=FitSettings(levels=(12, 24), iterations=(20, 20), rays=1024, prior_weight=30.0),
        mesh=MeshSettings(max_faces=2000, texture=256),
    )  # fmt: skip

# One result a photo: a photo that cannot be used does not stop the others, its result holds the error.
(result,) = image2mesh([Path("docs/demo/photo.png")], OUT, settings)
if result.error is not None:
    raise result.error
print(f"mesh:   {result.asset}")
print(f"report: {result.folder / 'report.html'}")
