import pytest
import torch
from torch.nn import functional

from gantoolkit.layers.resize import resize, resizing_matrix


@pytest.mark.parametrize(("size", "target"), [((17, 20), (9, 9)), ((8, 11), (16, 23)), ((12, 12), (12, 12))])
def test_two_matrix_products_resize_as_interpolation_does(size: tuple[int, int], target: tuple[int, int]) -> None:
    """This is the path of deterministic mode on CUDA, in float64 on the CPU."""
    images = torch.rand(2, 3, *size, dtype=torch.float64)
    rows, columns = (
        resizing_matrix(source, side, torch.float64, torch.device("cpu"))
        for source, side in zip(size, target, strict=True)
    )
    expected = functional.interpolate(images, target, mode="bilinear", antialias=True)
    torch.testing.assert_close(rows @ images @ columns.T, expected)
    torch.testing.assert_close(resize(images, target), expected)
