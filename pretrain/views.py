"""Views of pictures, made for a batch at once, on its device.

Random numbers are keyed by (seed, round, item, view), so ranks, resumed runs and methods draw the same.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from run.randomness import uniform

_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma
# RGB <-> luma and two colour axes (NTSC's YIQ); rotating the colour plane changes the hue
_TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def to_float(pixels: Tensor) -> Tensor:
    """(P, S, S, 3) uint8 -> (P, 3, S, S) float32 in [0, 1], planar in memory, the fastest layout for resizing."""
    count, height, width, colours = pixels.shape
    pictures = torch.empty(count, colours, height, width, device=pixels.device)
    return pictures.copy_(pixels.permute(0, 3, 1, 2)).div_(255.0)


def resized(pixels: Tensor, size: int) -> Tensor:
    """The full picture, undistorted: what embeddings are made from. (P, S, S, 3) uint8 -> (P, 3, size, size) in [0, 1].

    On a CPU the result has whole levels of 256: resizing integers takes a sixth of the time there, and is never more than one level away.
    """
    how = {"size": (size, size), "mode": "bilinear", "antialias": True, "align_corners": False}
    if pixels.is_cpu:
        return to_float(F.interpolate(pixels.permute(0, 3, 1, 2), **how).permute(0, 2, 3, 1))
    return F.interpolate(to_float(pixels), **how)


def cropped(pixels: Tensor, size: int, keys: tuple, *, smallest: float, stretch: float = 1.0, flip: bool = False) -> Tensor:
    """A random crop of each picture, resized to `size`.

    Args:
        pixels: (P, S, S, 3) uint8.
        keys: keys of the random numbers, arrays of (P,) among them.
        smallest: smallest share of the area that is kept; 1 keeps all.
        stretch: largest ratio of the crop's sides (4/3 for SimCLR); 1 keeps the picture's proportions.
        flip: mirror half of the pictures.

    Returns:
        (P, 3, size, size) float32 in [0, 1].
    """
    area = smallest + (1 - smallest) * uniform(*keys, "area")
    ratio = np.exp(np.log(stretch) * (2 * uniform(*keys, "ratio") - 1))
    wide, high = np.minimum(np.sqrt(area * ratio), 1), np.minimum(np.sqrt(area / ratio), 1)
    centre_x = (1 - wide) * (2 * uniform(*keys, "x") - 1)
    centre_y = (1 - high) * (2 * uniform(*keys, "y") - 1)
    mirror = np.where(uniform(*keys, "flip") < 0.5, -1.0, 1.0) if flip else np.ones_like(area)
    zero = np.zeros_like(area)
    affine = np.stack([np.stack([wide * mirror, zero, centre_x], -1), np.stack([zero, high, centre_y], -1)], 1)
    pictures = to_float(pixels)
    grid = F.affine_grid(torch.as_tensor(affine, dtype=torch.float32, device=pixels.device), [len(pixels), 3, size, size], False)
    return F.grid_sample(pictures, grid, mode="bilinear", padding_mode="border", align_corners=False)


def distorted(pictures: Tensor, keys: tuple, *, strength: float, blur: bool) -> Tensor:
    """SimCLR's colour distortion (Chen et al. 2020, appendix A): jitter, grey, blur.

    Jitter acts on 4 of 5 pictures: brightness, contrast and saturation by a factor in 1 +- 0.8 s, hue rotated by up to 0.2 s of the circle
    (a rotation of the colour plane in YIQ), in this order; the original draws the order. 1 of 5 pictures turns grey. Blur, if wanted,
    acts on half of the pictures with a deviation of 0.1 to 2 pixels.

    Args:
        pictures: (P, 3, H, W) float32 in [0, 1].
        strength: s.
    """

    def factor(name: str) -> np.ndarray:
        return 1 + np.where(jittered, 0.8 * strength * (2 * uniform(*keys, name) - 1), 0)

    jittered = uniform(*keys, "jitter") < 0.8
    angle = np.where(jittered, 0.2 * strength * 2 * np.pi * (2 * uniform(*keys, "hue") - 1), 0)
    colour = np.where(uniform(*keys, "grey") < 0.2, 0, np.maximum(factor("saturation"), 0))
    to_yiq = np.array(_TO_YIQ)
    turn = np.zeros((len(pictures), 3, 3))
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = colour * np.cos(angle)
    turn[:, 1, 2], turn[:, 2, 1] = -colour * np.sin(angle), colour * np.sin(angle)
    matrix = np.linalg.inv(to_yiq) @ turn @ to_yiq

    def on_device(values: np.ndarray) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=pictures.device).view(-1, 1, 1, 1)

    pictures = (pictures * on_device(factor("brightness"))).clamp_(0, 1)
    grey = pictures.new_tensor(_GREY).view(1, 3, 1, 1)
    mean = (pictures * grey).sum(1, keepdim=True).mean((2, 3), keepdim=True)
    pictures = (mean + (pictures - mean) * on_device(factor("contrast"))).clamp_(0, 1)
    per_picture = torch.as_tensor(matrix, dtype=torch.float32, device=pictures.device)
    pictures = torch.einsum("pij,pjhw->pihw", per_picture, pictures).clamp_(0, 1)
    if blur:
        sigma = np.where(uniform(*keys, "blur") < 0.5, 0.1 + 1.9 * uniform(*keys, "sigma"), 1e-3)
        pictures = _blurred(pictures, on_device(sigma).flatten())
    return pictures


def _blurred(pictures: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur with a deviation for each picture; the kernel spans a tenth of the picture, as in SimCLR."""
    count, channels, height, width = pictures.shape
    reach = max(1, round(height * 0.05))
    offset = torch.arange(-reach, reach + 1, device=pictures.device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offset / sigma[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    flat = F.pad(pictures.reshape(1, count * channels, height, width), (reach,) * 4, mode="reflect")
    flat = F.conv2d(flat, kernel[:, None, None, :], groups=count * channels)
    flat = F.conv2d(flat, kernel[:, None, :, None], groups=count * channels)
    return flat.reshape(count, channels, height, width)
