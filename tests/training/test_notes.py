"""What a data set holds and is not used is named while a run trains, at its end, in its report, and by the exit code."""

from collections.abc import Callable
from pathlib import Path

import pytest
from _helpers.small import TINY, make_image

import gantoolkit
from gantoolkit.data.notes import Note
from gantoolkit.errors import CheckpointError
from gantoolkit.files.tensors import read_header
from gantoolkit.recipes import Recipe
from gantoolkit.run import Run
from gantoolkit.training import Event, RunEnded, RunStarted, StepDone

FRAMES = "has several frames, of which only the first is used"


class Record:
    """A callback that keeps all events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def of(self, kind: type) -> list:
        return [event for event in self.events if isinstance(event, kind)]

    def notes(self) -> list[tuple[str, Note]]:
        return [
            (Path(path).name, note)
            for event in self.of(StepDone)
            for path, notes in event.notes.items()
            for note in notes
        ]


@pytest.fixture
def animated(dataset: Path) -> Path:
    """The data set with two animated images among those of A."""
    frames = [make_image(seed) for seed in range(3)]
    for name in ("05", "06"):
        frames[0].save(dataset / "trainA" / f"{name}.gif", save_all=True, append_images=frames[1:])
    return dataset


def settings() -> list[str]:
    values = {f"{slot}.{name}": value for slot in ("generator", "discriminator") for name, value in TINY[slot].items()}
    values |= {name: value for name, value in TINY.items() if name not in ("generator", "discriminator")}
    return [
        word
        for name, value in values.items()
        if not name.endswith(".name")
        for word in ("--set", f"{name}={str(value).lower()}")
    ]


@pytest.mark.parametrize("cache", ["none", "file", "device"])
def test_each_file_has_its_notes_once_also_when_it_comes_from_a_cache(
    cache, tiny: Recipe, animated: Path, tmp_path: Path
) -> None:
    for name in ("first", "second"):  # the second run decodes nothing with a cache in a file
        record = Record()
        run = Run.start(tiny, animated, tmp_path / name)
        end = run.train(device="cpu", cache=cache, callbacks=[record])
        assert sorted(record.notes()) == [
            ("05.gif", Note(FRAMES, passed_over=True)),
            ("06.gif", Note(FRAMES, passed_over=True)),
        ]
        assert len(end.notes) == 1
        assert end.notes[0].endswith(f".gif {FRAMES} (and 1 more)")
        assert end.passed_over == end.notes
        assert FRAMES in run.report.read_text()


def test_a_resumed_run_remembers_the_notes_of_its_earlier_sessions(
    tiny: Recipe, animated: Path, tmp_path: Path
) -> None:
    run = Run.start(tiny, animated, tmp_path / "run")
    whole = run.train(device="cpu")
    assert whole.start == 0
    record = Record()
    again = Run.open(tmp_path / "run").train(device="cpu", callbacks=[record])
    assert record.of(StepDone) == []
    assert (again.start, again.step) == (whole.step, whole.step)
    assert again.passed_over == whole.passed_over != ()
    saved = read_header(run.folder.list_checkpoints()[-1])["progress"]
    assert saved["notes"][FRAMES]["count"] == 2


@pytest.mark.slow(reason="starts worker processes")
def test_workers_pass_notes_on(tiny: Recipe, animated: Path, tmp_path: Path) -> None:
    record = Record()
    Run.start(tiny, animated, tmp_path / "run").train(device="cpu", workers=2, callbacks=[record])
    assert sorted(name for name, _ in record.notes()) == ["05.gif", "06.gif"]


def test_what_the_folders_hold_beside_images_is_named_at_the_start(tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
    (dataset / "trainB" / "more.heic").write_text("unknown")
    record = Record()
    end = Run.start(tiny, dataset, tmp_path / "run").train(device="cpu", stop_at=2, callbacks=[record])
    (started,) = record.of(RunStarted)
    assert (started.step, started.steps) == (0, 10)
    assert any("more.heic" in note for note in started.notes)
    assert any("more.heic" in note for note in end.passed_over)
    assert isinstance(record.events[0], RunStarted)
    assert isinstance(record.events[-1], RunEnded)


def test_nothing_is_passed_over_in_a_plain_data_set(tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
    record = Record()
    end = Run.start(tiny, dataset, tmp_path / "run").train(device="cpu", callbacks=[record])
    assert record.notes() == []
    assert end.notes == end.passed_over == ()


class TestCommand:
    @pytest.fixture
    def train(self, command, dataset: Path, tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
        def train(*options: object) -> tuple[int, str, str]:
            run = ["--data", dataset, "--out", tmp_path / "run", "--device", "cpu"]
            return command("train", "cyclegan", *run, *settings(), *options)

        return train

    def test_a_plain_data_set_exits_with_0(self, train) -> None:
        code, _, errors = train()
        assert code == 0
        assert "note:" not in errors
        assert "passed over:" not in errors

    def test_frames_are_named_once_and_counted_at_the_end(self, train, animated: Path) -> None:
        code, _, errors = train()
        assert code == 3
        lines = [line for line in errors.splitlines() if FRAMES in line]
        assert len(lines) == 2
        assert lines[0].startswith(f"note: {animated / 'trainA'}")
        assert lines[0].endswith(FRAMES)
        assert lines[1].endswith(f"{FRAMES} (and 1 more)")

    def test_a_bad_file_is_named_and_the_exit_code_is_3(self, train, dataset: Path) -> None:
        (dataset / "trainA" / "01.png").write_text("not an image")
        code, _, errors = train()
        assert code == 3
        assert f"warning: {dataset / 'trainA' / '01.png'} is not a readable image" in errors
        assert f"passed over: {dataset / 'trainA' / '01.png'} was skipped: is not a readable image" in errors

    def test_files_that_are_no_images_are_named_and_the_exit_code_is_3(self, train, dataset: Path) -> None:
        (dataset / "trainA" / "x.heic").write_text("unknown")
        code, _, errors = train("--stop-at", 2)
        assert code == 3
        assert errors.count("x.heic") == 1

    def test_a_pair_of_other_sizes_is_named_and_the_exit_code_is_3(self, command, tmp_path: Path) -> None:
        for name, size in (("0", (40, 36)), ("1", (40, 36)), ("2", (60, 36))):
            for domain in "AB":
                (tmp_path / f"train{domain}").mkdir(exist_ok=True)
                make_image(1, size if domain == "B" else (40, 36)).save(tmp_path / f"train{domain}" / f"{name}.png")
        blocks = ["generator.width=4", "generator.depth=3", "discriminator.width=4", "discriminator.layers=1"]
        sizes = ["data.crop_size=16", "data.load_size=20", "data.resize=shorter_side", "training.epochs=2"]
        changes = [word for setting in (*blocks, *sizes) for word in ("--set", setting)]
        code, _, errors = command(
            "train", "pix2pix", "--data", tmp_path, "--out", tmp_path / "run", "--device", "cpu", *changes
        )
        assert code == 3
        assert f"warning: {tmp_path / 'trainA' / '2.png'} is 22×20" in errors
        assert "gantoolkit data pair --resize" in errors


class TestAdvice:
    """What a session says about what can be done next is true."""

    def test_a_finished_run_is_not_to_be_continued_with_other_settings(
        self, tiny: Recipe, dataset: Path, tmp_path: Path
    ) -> None:
        gantoolkit.train(tiny, dataset, tmp_path / "run", device="cpu")
        with pytest.raises(
            CheckpointError,
            match=r"training\.epochs is 3 here and 2 there; that run is finished at step 10, so choose another --out",
        ) as error:
            Run.start(tiny.swap({"training.epochs": 3}), dataset, tmp_path / "run")
        assert "--resume" not in str(error.value)

    def test_an_unfinished_run_can_be_resumed_as_it_is(self, tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
        gantoolkit.train(tiny, dataset, tmp_path / "run", device="cpu", stop_at=4)
        with pytest.raises(CheckpointError, match=r"or resume that run as it is with --resume"):
            Run.start(tiny.swap({"training.epochs": 3}), dataset, tmp_path / "run")

    def test_a_run_that_saved_no_step_can_be_removed(self, tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
        """Such as one whose images cannot be read with its settings: resuming it as it is would fail again."""
        Run.start(tiny, dataset, tmp_path / "run")
        with pytest.raises(
            CheckpointError, match=r"no step of that run was saved: remove .*run, or choose another --out"
        ):
            Run.start(tiny.swap({"training.epochs": 3}), dataset, tmp_path / "run")

    def test_a_finished_run_says_that_nothing_was_left(
        self, command, tiny: Recipe, dataset: Path, tmp_path: Path
    ) -> None:
        run = gantoolkit.train(tiny, dataset, tmp_path / "run", device="cpu")
        code, output, _ = command("train", "--resume", run.path)
        assert code == 0
        assert "the run was finished before, at step 10: there was nothing to train" in output
        assert "need another --out" in output
        assert "continue with" not in output

    def test_a_step_that_is_done_is_no_place_to_stop(
        self, command, tiny: Recipe, dataset: Path, tmp_path: Path
    ) -> None:
        run = gantoolkit.train(tiny, dataset, tmp_path / "run", device="cpu", stop_at=6)
        code, output, _ = command("train", "--resume", run.path, "--stop-at", 4)
        assert code == 0
        assert "the run is at step 6, where --stop-at ends it: nothing was trained" in output

    def test_a_stop_beyond_the_end_finishes(self, command, tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
        run = gantoolkit.train(tiny, dataset, tmp_path / "run", device="cpu", stop_at=6)
        code, output, _ = command("train", "--resume", run.path, "--stop-at", 400)
        assert code == 0
        assert "finished at step 10" in output
        assert "continue with" not in output

    def test_the_command_to_continue_names_a_data_set_that_has_moved(
        self, command, tiny: Recipe, dataset: Path, tmp_path: Path
    ) -> None:
        run = gantoolkit.train(tiny, dataset, tmp_path / "a run", device="cpu", stop_at=2)
        moved = dataset.rename(tmp_path / "moved")
        _, output, _ = command("train", "--resume", run.path, "--data", moved, "--stop-at", 4)
        assert f"train --resume '{run.path}' --data {moved}" in output
        _, output, _ = command("train", "--resume", run.path, "--data", moved)
        assert "continue with" not in output
