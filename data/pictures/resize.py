"""From a decoded picture to the square that encoders see."""

from __future__ import annotations

import numpy as np


def cover(pixels: np.ndarray, size: int) -> np.ndarray:
    """(H, W, 3) uint8 -> (size, size, 3): the central square, resized with antialiasing (bicubic)."""
    import torch
    from torch.nn.functional import interpolate

    side = min(pixels.shape[:2])
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    # cropped first: resizing first would blow a 1 x 40,000,000 strip up to terabytes
    square = torch.from_numpy(np.array(pixels[top : top + side, left : left + side])).permute(2, 0, 1)[None]
    # torch's rather than Pillow's: four times as fast, and nowhere more than two of 256 levels away
    resized = interpolate(square, size=(size, size), mode="bicubic", antialias=True)
    return resized[0].permute(1, 2, 0).contiguous().numpy()
