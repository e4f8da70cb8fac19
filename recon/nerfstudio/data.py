"""Pictures with masks for nerfstudio, whose own data sets either drop masks or skip the pixels outside them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager, VanillaDataManagerConfig
from nerfstudio.data.datasets.base_dataset import InputDataset
from PIL import Image

from scene.errors import InputError
from scene.photo import load_mask
from scene.pictures.opening import opened, orientation_of, stored_size


class CaptureDataset(InputDataset):
    """Pictures whose fourth channel is the mask, from a mask file or from the picture's own alpha.

    There is no ``mask`` entry: nerfstudio would draw no rays outside it, where a surface learns most of its outline.
    """

    def get_data(self, image_idx: int, image_type: Literal["uint8", "float32"] = "float32") -> dict[str, Any]:
        """One picture, straight alpha.

        Raises:
            InputError: there is neither a mask file nor an alpha channel.
        """
        image = self.get_numpy_image(image_idx)
        outputs = self._dataparser_outputs
        if outputs.mask_filenames:
            path = outputs.mask_filenames[image_idx]
            with opened(outputs.image_filenames[image_idx]) as picture:
                turn = orientation_of(picture)
                size = stored_size(picture, turn)
            mask = Image.fromarray(load_mask(path, size, orientation=turn, stored=True))
            alpha = np.asarray(mask.resize(image.shape[1::-1], Image.Resampling.BILINEAR))
            image = np.concatenate([image[..., :3], alpha[..., None]], -1)
        if image.shape[-1] != 4:
            raise InputError(
                "a surface fit needs masks",
                where=outputs.image_filenames[image_idx],
                fix="Give RGBA pictures, or a mask_path for every frame.",
            )
        pixels = torch.from_numpy(image)
        return {"image_idx": image_idx, "image": pixels.float() / 255 if image_type == "float32" else pixels}


class CaptureDataManager(VanillaDataManager[CaptureDataset]):
    """nerfstudio's single-process data manager with masked pictures."""


@dataclass
class CaptureDataManagerConfig(VanillaDataManagerConfig):
    """Settings of nerfstudio's single-process data manager."""

    _target: type = field(default_factory=lambda: CaptureDataManager)
