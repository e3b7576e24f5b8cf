"""Pictures at the size of a store: the central square, averaged; a large JPEG may be decoded small."""

from __future__ import annotations

import numpy as np

from data.pictures.files import read_picture
from data.pictures.resize import cover
from tests.drawn_pictures import encoded, folder_with, picture


def test_cover_keeps_the_central_square():
    strip = np.zeros((10, 30, 3), dtype=np.uint8)
    strip[:, 10:20] = 255
    assert (cover(strip, 10) == 255).all()
    assert (cover(strip.transpose(1, 0, 2), 10) == 255).all()
    assert cover(np.full((1, 100_000, 3), 7, dtype=np.uint8), 16).tolist() == np.full((16, 16, 3), 7).tolist()


def test_shrinking_averages_instead_of_skipping():
    board = np.indices((64, 64)).sum(axis=0) % 2 * 255
    assert np.abs(cover(np.repeat(board[..., None], 3, axis=2).astype(np.uint8), 8).astype(int) - 127.5).max() < 8


def test_a_large_jpeg_may_be_decoded_small_but_never_below_what_is_needed(tmp_path):
    folder = folder_with(tmp_path, {"large.jpg": encoded(picture(800, 600), "JPEG", quality=95)})
    small = read_picture(folder, "large.jpg", at_least=100)
    assert small.shape == (150, 200, 3)
    full = cover(read_picture(folder, "large.jpg"), 50).astype(int)
    assert np.abs(cover(small, 50) - full).mean() < 1.5
