import pytest
import torch

from gantoolkit.runtime.device import current_device, is_out_of_memory
from gantoolkit.runtime.memory import available_memory


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8"
        ),
        RuntimeError("could not create a primitive"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError(
            "CUDNN_BACKEND_TENSOR_DESCRIPTOR cudnnFinalize failed: CUDNN_STATUS_INTERNAL_ERROR_ALLOCATION_FAILED"
        ),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
    ],
    ids=lambda error: str(error)[:40],
)
def test_every_library_says_differently_that_memory_has_run_out(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize("message", ["size mismatch for model.0.weight", "CUDA error: device-side assert triggered"])
def test_other_errors_are_not_about_memory(message: str) -> None:
    assert not is_out_of_memory(RuntimeError(message))


def test_memory_that_the_allocator_keeps_is_available(monkeypatch: pytest.MonkeyPatch) -> None:
    """After 60 of 80 GB were used and freed, the device itself still reports 20 GB."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (20, 80))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 60)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 15)
    assert available_memory(torch.device("cuda")) == 65


def test_the_current_device_concerns_only_cuda() -> None:
    with current_device(torch.device("cpu")):
        assert torch.zeros(1).device.type == "cpu"
