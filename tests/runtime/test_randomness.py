import pytest
import torch

from gantoolkit.errors import TrainingError
from gantoolkit.runtime.randomness import isolated_random_state

CPU = torch.device("cpu")


def test_deterministic_mode_ends_with_the_context_and_does_not_fill_memory() -> None:
    assert torch.utils.deterministic.fill_uninitialized_memory
    with isolated_random_state(CPU, deterministic=True):
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.utils.deterministic.fill_uninitialized_memory
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory


def test_an_operation_without_a_deterministic_algorithm_is_named() -> None:
    """The message is the one of torch."""
    with (
        pytest.raises(
            TrainingError, match="deterministic is true, but grid_sampler_2d_backward_cuda has no deterministic"
        ),
        isolated_random_state(CPU, deterministic=True),
    ):
        raise RuntimeError(
            "grid_sampler_2d_backward_cuda does not have a deterministic implementation, but you set "
            "'torch.use_deterministic_algorithms(True)'. You can turn off determinism just for this operation"
        )


def test_other_errors_pass_unchanged() -> None:
    with pytest.raises(RuntimeError, match=r"^something else$"), isolated_random_state(CPU, deterministic=True):
        raise RuntimeError("something else")
