#!/usr/bin/env bash
# check-wheel.sh PYTHON WHEEL: installs the wheel far from the checkout, and makes an asset there with what it brings.
set -euo pipefail
python=$1 wheel=$(realpath "$2") locks=$(realpath "$(dirname "$0")/../requirements")

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
"$(dirname "$0")/make-venv.sh" "$python" "$place/venv" 3.10 3.13
bin=$place/venv/bin
"$bin/python" -m pip install -r "$locks/core.lock"
"$bin/python" -m pip install --no-deps "$wheel"
"$bin/python" -m pip check

mkdir "$place/away"
cd "$place/away"
unset PYTHONPATH
"$bin/viewloom" --version
"$bin/viewloom" doctor
"$bin/python" - "$place" <<'PHOTO'
"""A photo to try: a lit ball cut out on transparency; and a look at where the code comes from."""
import importlib.metadata
import sys
from pathlib import Path

import numpy as np
from PIL import Image

import pipeline, qnerf, recon, scene, viewloom

for room in (pipeline, qnerf, recon, scene, viewloom):
    folder = Path(room.__file__).resolve().parent
    assert folder.is_relative_to(Path(sys.argv[1]).resolve()), f"{folder} is not the installed package"
    assert (folder / "py.typed").is_file(), f"{folder} has no py.typed"
assert viewloom.__version__ == importlib.metadata.version("viewloom")

y, x = np.mgrid[-1.3:1.3:256j, -1.3:1.3:256j]
inside = x**2 + y**2 < 1
shade = 0.4 + 0.6 * np.clip(0.5 - 0.5 * x - 0.7 * y, 0, 1)
picture = np.dstack([200 * shade, 120 * shade, 60 * shade, 255 * inside]).astype(np.uint8)
Image.fromarray(picture).save("ball.png")
PHOTO
"$bin/viewloom" image2mesh ball.png -o out --preset draft
"$bin/python" - <<'RESULT'
from pathlib import Path

from recon.export.validate import validate_glb

report = validate_glb(Path("out/ball/ball.glb"))
print(f"ball.glb: {report.errors} errors, {report.warnings} warnings ({report.tool})")
assert report.clean, report.messages
RESULT
