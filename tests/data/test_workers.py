"""Worker processes: shared memory is checked before the first step, waiting hears signals, and a lost worker is explained."""

import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from gantoolkit.data import LoadedBatch, TrainingBatches, open_dataset, sampling, workers
from gantoolkit.data.reader import ImageReader, LoadedImage
from gantoolkit.data.sources import HostSource
from gantoolkit.errors import DataError
from gantoolkit.recipes.settings import DataSettings

MIB = 2**20


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets the free bytes of shared memory."""

    def set_free(size: int) -> None:
        real = os.statvfs
        status = SimpleNamespace(f_bavail=size, f_frsize=1)
        monkeypatch.setattr(os, "statvfs", lambda path: status if path == workers.SHARED_MEMORY else real(path))

    return set_free


def make_batches(dataset: Path, count: int = 1, **options) -> TrainingBatches:
    data = DataSettings(**{"crop_size": 256, **options.pop("settings", {})})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* workers share")
        return TrainingBatches(
            open_dataset(dataset), data, **{"batch_size": 16, "seed": 0, "workers": count, "cache": "none", **options}
        )


class TestSharedMemory:
    def test_a_container_with_64_mb_is_too_small_for_four_workers(self, dataset: Path, free) -> None:
        free(64 * MIB)
        with pytest.raises(DataError) as error:
            make_batches(dataset, 4)
        message = str(error.value)
        assert "/dev/shm: has 64 MiB free, and 4 workers need 240 MiB there" in message  # 10 batches of 24 MiB
        assert "docker run --shm-size" in message
        assert "--ipc=host" in message
        assert "--workers 0" in message

    def test_the_limit_is_the_batches_of_all_workers_and_of_two_steps(self, dataset: Path, free) -> None:
        free(6 * 24 * MIB)
        make_batches(dataset, 2)
        free(6 * 24 * MIB - 1)
        with pytest.raises(DataError, match="2 workers need 144 MiB"):
            make_batches(dataset, 2)

    @pytest.mark.parametrize("changes", [{"channels_A": 1}, {"channels_B": 1}, {"crop_size": 128}])
    def test_channels_of_both_domains_and_the_crop_count(self, changes: dict, dataset: Path, free) -> None:
        free(6 * 24 * MIB - 1)
        make_batches(dataset, 2, settings=changes)

    def test_processes_of_one_machine_share_it(self, dataset: Path, free, monkeypatch: pytest.MonkeyPatch) -> None:
        free(6 * 24 * MIB)  # half a batch for each process
        make_batches(dataset, 2, world_size=2)
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
        make_batches(dataset, 2, world_size=2)
        free(6 * 24 * MIB - 1)
        with pytest.raises(DataError, match="4 workers need 144 MiB"):
            make_batches(dataset, 2, world_size=2)

    def test_without_workers_it_is_not_needed(self, dataset: Path, free) -> None:
        free(0)
        make_batches(dataset, 0)
        make_batches(dataset, 4, cache="device")

    def test_a_system_without_the_folder_is_not_checked(self, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(workers, "SHARED_MEMORY", Path("/nonexistent"))
        make_batches(dataset, 64)

    def test_a_batch_for_which_there_is_no_space_is_an_error_with_the_remedy(
        self, free, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(self: torch.Tensor) -> torch.Tensor:
            raise RuntimeError(
                "unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)"
            )

        free(3 * MIB)
        monkeypatch.setattr(torch.Tensor, "share_memory_", fail)
        batch = LoadedBatch({"A": torch.zeros(1)}, {}).share_memory()
        assert batch.images == {}
        assert "No space left on device" in batch.error
        assert "/dev/shm has 3 MiB free" in batch.error
        assert "docker run --shm-size" in batch.error


class TestManyWorkers:
    def test_more_workers_than_cores_are_named_in_one_sentence_of_ours(
        self, dataset: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(2))
        data = DataSettings(crop_size=16, load_size=20)
        with pytest.warns(UserWarning, match="workers") as caught:
            TrainingBatches(open_dataset(dataset), data, batch_size=1, seed=0, workers=3, cache="none")
        (warning,) = caught
        assert str(warning.message).startswith("3 workers share 2 cores with training")

    def test_as_many_workers_as_cores_are_fine(self, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(3))
        data = DataSettings(crop_size=16, load_size=20)
        TrainingBatches(open_dataset(dataset), data, batch_size=1, seed=0, workers=3, cache="none")


class LostSource(HostSource):
    """Sends a signal to its own process, or waits, when an image is loaded."""

    def __init__(self, reader: ImageReader, action: str) -> None:
        super().__init__(reader)
        self.action = action

    def load(self, domain: str, index: int) -> LoadedImage:
        if self.action == "hang":
            time.sleep(600)
        elif self.action == "exit":
            os._exit(7)
        elif self.action:
            os.kill(os.getpid(), signal.Signals[self.action])
        return super().load(domain, index)


@pytest.fixture
def lost(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], TrainingBatches]:
    """Batches whose worker does something when it loads an image."""
    # A worker process cannot import this module under the name that pytest gives it.
    monkeypatch.syspath_prepend(Path(__file__).parent)
    monkeypatch.setitem(sys.modules, Path(__file__).stem, sys.modules[__name__])
    monkeypatch.setattr(LostSource, "__module__", Path(__file__).stem)

    def make(action: str, count: int = 1) -> TrainingBatches:
        monkeypatch.setattr(
            sampling, "open_source", lambda data, settings, *_: LostSource(ImageReader(data, settings), action)
        )
        return make_batches(dataset, count, batch_size=1, settings={"crop_size": 16, "load_size": 20})

    return make


@pytest.mark.slow(reason="starts worker processes")
class TestLostWorkers:
    @pytest.mark.parametrize(
        ("action", "text"),
        [
            ("SIGBUS", r"was ended by SIGBUS: /dev/shm is full, .*docker run --shm-size"),
            ("SIGKILL", r"was killed, probably because .* out of memory; use fewer workers"),
            ("SIGSEGV", r"was ended by SIGSEGV; use --workers 0"),
            ("exit", r"has ended with exit code 7\. .*imported a script"),
        ],
    )
    def test_the_reason_is_one_sentence(self, action: str, text: str, lost, capfd: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(DataError, match=text):
            next(lost(action).iterate(0, 4))
        assert capfd.readouterr().err == ""

    def test_a_worker_that_ends_does_not_interrupt_the_step_that_runs(self, lost) -> None:
        batches = lost("").iterate(0, 20)
        next(batches)
        (worker,) = children()
        os.kill(worker, signal.SIGKILL)
        time.sleep(0.5)  # an asynchronous exception would be raised here
        with pytest.raises(DataError, match="was killed"):
            list(batches)

    def test_waiting_stops_when_asked_and_leaves_no_worker(self, lost) -> None:
        calls: list[bool] = []

        def should_stop() -> bool:
            calls.append(True)
            return len(calls) == 2

        with pytest.raises(workers.LoadingInterruptedError):
            next(lost("hang", 2).iterate(0, 4, should_stop=should_stop))
        assert len(calls) == 2
        assert children() == []

    def test_waiting_ends_after_the_timeout_and_names_the_files(self, lost, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(workers, "WORKER_TIMEOUT_SECONDS", 2.0)
        with pytest.raises(
            DataError, match=r"no images were loaded for 2 s; .* Step 1 waits for .*trainA/.*, .*trainB/"
        ):
            next(lost("hang").iterate(0, 4))
        assert children() == []

    def test_batches_are_the_same_after_many_timeouts_of_the_loader(
        self, lost, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(workers, "POLL_SECONDS", 0.01)  # shorter than a worker takes to start
        calls: list[bool] = []
        waiting = lost("", 2).iterate(0, 10, should_stop=lambda: bool(calls.append(True)))
        for batch, other in zip(waiting, lost("", 0).iterate(0, 10), strict=True):
            assert all(torch.equal(images, other.images[domain]) for domain, images in batch.images.items())
        assert len(calls) > 10

    def test_torch_does_not_warn_of_many_workers_too(self, lost, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(1))
        batches = lost("", 2)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            next(batches.iterate(0, 4))

    def test_no_worker_outlives_an_error_that_is_still_handled(self, dataset: Path, lost) -> None:
        for path in (dataset / "trainA").iterdir():
            path.write_text("not an image")
        with pytest.raises(DataError, match="domain A: no image can be read") as error:
            next(lost("").iterate(0, 4))
        assert children() == []
        del error

    def test_workers_end_when_a_consumer_stops_early(self, lost) -> None:
        batches = lost("", 2).iterate(0, 20)
        next(batches)
        del batches
        assert children() == []

    def test_signals_of_other_threads_are_not_needed(self, lost) -> None:
        """A run in a thread, where no signal handler can be set, notices a lost worker too."""
        errors: list[Exception] = []

        def load() -> None:
            try:
                next(lost("SIGKILL").iterate(0, 4))
            except DataError as error:
                errors.append(error)

        thread = threading.Thread(target=load)
        thread.start()
        thread.join()
        assert "was killed" in str(errors[0])


def children() -> list[int]:
    """The processes that load images for this one."""
    lists = list(Path("/proc/self/task").glob("*/children"))
    processes = [int(child) for path in lists for child in path.read_text().split()]
    return [child for child in processes if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
