"""Graphs of repeated translations: when they are captured, what a replay returns, and what happens if CUDA refuses."""

from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest
import torch
from torch import Tensor

from gantoolkit.inference.captured import CapturedFunction
from gantoolkit.runtime.graphs import GraphRecorder


class Recorder(GraphRecorder):
    """Records and replays as CUDA does, on the CPU: a replay overwrites the result of the recording."""

    def __init__(self, refusal: str = "") -> None:
        self.refusal = refusal
        self.warm_ups = self.recordings = self.replays = 0

    def warm_up(self, function: Callable[[], Any]) -> Any:
        self.warm_ups += 1
        return function()

    def record(self, function: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        if self.refusal:
            raise RuntimeError(self.refusal)
        self.recordings += 1
        result = torch.empty_like(function())

        def replay() -> None:
            self.replays += 1
            result.copy_(function())

        return replay, result


def images_of(value: float, size: int = 2) -> Tensor:
    return torch.full((1, 3, size, size), value)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def test_third_call_of_a_shape_is_captured_and_later_ones_are_replayed(recorder: Recorder) -> None:
    captured = CapturedFunction(torch.neg, recorder)
    results = [captured(images_of(value)) for value in (1.0, 2.0, 3.0, 4.0)]
    assert (recorder.warm_ups, recorder.recordings, recorder.replays) == (1, 1, 2)
    assert captured.problem == ""
    # A later replay does not change earlier results.
    assert [float(result.flatten()[0]) for result in results] == [-1.0, -2.0, -3.0, -4.0]


def test_each_shape_has_its_own_graph_up_to_a_bound(recorder: Recorder) -> None:
    captured = CapturedFunction(torch.neg, recorder)
    for _ in range(4):
        for size in range(1, 12):
            assert torch.equal(captured(images_of(size, size)), images_of(-size, size))
    assert recorder.recordings == 8
    assert recorder.replays == 16


def test_images_in_another_memory_format_use_the_same_graph(recorder: Recorder) -> None:
    captured = CapturedFunction(torch.neg, recorder)
    images = torch.rand(2, 3, 4, 4)
    for _ in range(3):
        captured(images)
    other = torch.rand(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    assert torch.equal(captured(other), -other)
    assert recorder.recordings == 1


def test_refused_capture_leaves_the_reason_and_is_not_tried_again() -> None:
    recorder = Recorder("operation not permitted when stream is capturing\nmore")
    captured = CapturedFunction(torch.neg, recorder)
    for value in range(5):
        assert torch.equal(captured(images_of(value)), images_of(-value))
    assert captured.problem == "operation not permitted when stream is capturing"
    assert recorder.warm_ups == 1


def test_threads_take_turns(recorder: Recorder) -> None:
    """Without turns, threads would overwrite the input of each other."""
    captured = CapturedFunction(lambda images: images * 2, recorder)
    wrong: list[float] = []

    def call(value: float) -> None:
        for _ in range(50):
            result = captured(images_of(value, 32))
            if not torch.equal(result, images_of(2 * value, 32)):
                wrong.append(value)

    threads = [Thread(target=call, args=(float(number),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert recorder.recordings == 1
