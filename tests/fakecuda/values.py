"""Kernels of the stand-in do nothing, so values mean nothing: what looks at them is replaced. Also a plugin of pytest.

Comparisons of tensors compare shapes, dtypes and devices alone. Checks for non-finite values read what they read, since they
may wait for the device, and pass.
"""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

__all__ = ["ignore_values"]


def pytest_configure(config: pytest.Config) -> None:
    """Ignore values in all tests: `pytest -p fakecuda.values`."""
    ignore_values()


def ignore_values() -> None:
    """Replace what looks at values, for the rest of the process."""
    from gantoolkit.training.state import RunState
    from gantoolkit.training.trainer import StepResult

    torch.testing.assert_close = _assert_alike
    torch.equal = lambda first, second: first.shape == second.shape and first.dtype == second.dtype
    find_non_finite: Any = RunState.find_non_finite
    skipped: Any = StepResult.skipped
    setattr(RunState, "find_non_finite", lambda self: find_non_finite(self)[:0])  # noqa: B010
    setattr(StepResult, "skipped", property(lambda self: skipped.fget(self) and None))  # noqa: B010


def _assert_alike(actual: Any, expected: Any, *, check_device: bool = True, **options: Any) -> None:
    """Stands in for `torch.testing.assert_close`."""
    for first, second in zip(tree_leaves(actual), tree_leaves(expected), strict=True):
        if isinstance(first, Tensor):
            assert (first.shape, first.dtype) == (second.shape, second.dtype)
            assert first.device == second.device or not check_device
