"""A checkpoint in the layout of the public Zero123 models: written with tiny random parts, loaded, and run.

    pip install "viewloom[checkpoints]"            # CLIP's image encoder comes from transformers
    python examples/07_public_checkpoint_tiny.py   # seconds; the views are noise

Put a real one's path or name (kxic/zero123-xl) in place of FOLDER, and its views are views; docs/checkpoints.md.
"""

import json
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import save_file

from viewloom import SamplingSettings, generate_views, load_view_model, prepare_photo

try:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
except ImportError:
    sys.exit("this example needs the package transformers: pip install viewloom[checkpoints]")

FOLDER, WIDTH = Path("out/examples/tiny_zero123"), 32
unet = UNet2DConditionModel(16, 8, block_out_channels=(32,) * 4, layers_per_block=1, cross_attention_dim=WIDTH)
unet.save_pretrained(FOLDER / "unet")
AutoencoderKL(block_out_channels=(32,)).save_pretrained(FOLDER / "vae")
tower = CLIPVisionConfig(hidden_size=64, num_hidden_layers=1, num_attention_heads=1, projection_dim=WIDTH)
CLIPVisionModelWithProjection(tower).save_pretrained(FOLDER / "image_encoder")
DDIMScheduler(beta_schedule="scaled_linear").save_pretrained(FOLDER / "scheduler")
(FOLDER / "cc_projection").mkdir(exist_ok=True)
projection = {"projection.weight": torch.randn(WIDTH, WIDTH + 4), "projection.bias": torch.zeros(WIDTH)}
save_file(projection, FOLDER / "cc_projection" / "diffusion_pytorch_model.safetensors")
(FOLDER / "model_index.json").write_text(json.dumps({"cc_projection": ["pipeline_zero123", "CCProjection"]}))

model = load_view_model(FOLDER)
photo = prepare_photo(Path("docs/demo/photo.png")).resized(model.image_size)
orbits = torch.tensor([[azimuth, 0.2, 1.5] for azimuth in (0.0, 1.5, 3.0, 4.5)])
views = generate_views(model, photo, orbits, SamplingSettings(steps=2, guidance=3.0), elevation_deg=18.0)
print(f"{len(views.rgba)} views of {model.image_size} pixels; poses end with their {model.conditioning.fourth}")
