"""Whole runs: exact resume, what a run writes, and what goes wrong on the way."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from small import make_dataset

from gantoolkit.errors import CheckpointError, DataError, RecipeError
from gantoolkit.recipe import Recipe
from gantoolkit.run import Run
from gantoolkit.training import CheckpointSaved, Event, RunEnded, RunFolder, SamplesDrawn, StepDone, load_generator
from gantoolkit.training.tensorfile import read_header, read_tensors, write_tensors

# A dropout layer, identity and pools that fill up: everything that draws at random takes part.
STEPS = 10


def final_state(run: Run) -> dict[str, torch.Tensor]:
    return read_tensors(run.folder.list_checkpoints()[-1])


def assert_same_state(first: Run, second: Run) -> None:
    ours, theirs = final_state(first), final_state(second)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


@pytest.fixture
def lively(tiny: Recipe) -> Recipe:
    return tiny.swap({"identity_weight": 5.0, "generator.dropout": 0.5, "optimizer.lr": 1e-2})


@pytest.mark.parametrize("stops", [[5], [1, 2, 7], [3], [4, 9]])
def test_a_stopped_run_continues_bit_for_bit(stops: list[int], lively: Recipe, dataset: Path, tmp_path: Path) -> None:
    whole = lively.train(dataset, tmp_path / "whole", device="cpu")
    for stop in stops:
        interrupted = lively.train(dataset, tmp_path / "parts", device="cpu", stop_at=stop)
    interrupted.train(device="cpu")
    assert_same_state(whole, interrupted)
    rows = [
        [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in log.splitlines()]
        for log in (run.folder.log.read_text() for run in (whole, interrupted))
    ]
    assert rows[0] == rows[1]
    assert [row["step"] for row in rows[0]] == [2, 4, 6, 8, 10]


@pytest.mark.parametrize(
    "changes",
    [
        {"scheduler": {"name": "plateau", "metric": "G/cycle_A", "patience": 0, "threshold": 0.9, "factor": 0.5}},
        {"adversarial_loss": "wgan_gp", "discriminator.norm": "none"},
        {"generator.norm": "batch", "training.batch_size": 2, "training.epochs": 3},
        {"optimizer": "sgd", "discriminator.spectral_norm": True},
    ],
    ids=["plateau", "wgan_gp", "batch norm", "spectral norm"],
)
def test_resume_is_exact_with_other_blocks_too(changes, lively: Recipe, dataset: Path, tmp_path: Path) -> None:
    recipe = lively.swap(changes)
    whole = recipe.train(dataset, tmp_path / "whole", device="cpu")
    recipe.train(dataset, tmp_path / "parts", device="cpu", stop_at=3)
    parts = Run.open(tmp_path / "parts")
    parts.train(device="cpu", stop_at=7)
    parts.train(device="cpu")
    assert_same_state(whole, parts)


def test_workers_change_nothing(lively: Recipe, dataset: Path, tmp_path: Path) -> None:
    alone = lively.train(dataset, tmp_path / "alone", device="cpu", workers=0)
    lively.train(dataset, tmp_path / "helped", device="cpu", workers=2, stop_at=4)
    helped = lively.train(dataset, tmp_path / "helped", device="cpu", workers=1)
    assert_same_state(alone, helped)


def test_paired_data_and_pix2pix_resume_exactly(tiny_pix2pix: Recipe, tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "pairs", count_A=5, count_B=5)
    whole = tiny_pix2pix.train(data, tmp_path / "whole", device="cpu")
    tiny_pix2pix.train(data, tmp_path / "parts", device="cpu", stop_at=6)
    parts = tiny_pix2pix.train(data, tmp_path / "parts", device="cpu")
    assert_same_state(whole, parts)
    assert [path.stem for path in parts.folder.generators.iterdir()] == ["A2B"]


def test_a_run_leaves_the_global_generators_as_they_were(tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    tiny.train(dataset, tmp_path / "run", device="cpu", stop_at=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.are_deterministic_algorithms_enabled()


def test_what_a_run_writes(tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    tiny.train(dataset, tmp_path / "run", device="cpu", callbacks=[events.append])
    assert [event.step for event in events if isinstance(event, StepDone)] == list(range(1, STEPS + 1))
    assert [event.step for event in events if isinstance(event, CheckpointSaved)] == [4, 8, 10]
    assert [event.step for event in events if isinstance(event, SamplesDrawn)] == [0, 4, 8, 10]
    assert isinstance(events[-1], RunEnded)
    assert events[-1].reason == "finished"

    folder = RunFolder(tmp_path / "run")
    assert folder.read_recipe().resolve() == tiny.resolve()
    assert [path.name for path in folder.list_checkpoints()] == [
        "step-00000008.safetensors",
        "step-00000010.safetensors",
    ]
    about = json.loads(folder.about_file.read_text())
    assert about["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert about["plugins"]["gantoolkit"]
    with folder.table.open() as file:
        table = list(csv.DictReader(file))
    assert [row["step"] for row in table] == ["2", "4", "6", "8", "10"]
    assert float(table[0]["rate/G"]) == 2e-4
    assert float(table[-1]["rate/G"]) == pytest.approx(1e-4)
    assert list(folder.tensorboard.glob("events.out.tfevents.*"))
    with Image.open(folder.samples / "step-00000010.png") as grid:
        assert grid.size == (6 * 16 + 5 * 2, 18 + 2 * 16 + 2)
    assert {path.name for path in folder.path.rglob("*") if path.name.endswith(".part")} == set()


def test_the_report_is_one_page_that_needs_nothing(tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
    page = tiny.train(dataset, tmp_path / "run", device="cpu").report.read_text()
    assert page.count("data:image/png;base64,") == 4
    assert page.count("<svg") == 2
    assert "Step 10 of 10, finished" in page
    assert "crop_size = 16" in page
    assert 'src="http' not in page
    assert 'href="http' not in page.replace('xlink:href="#', "")


def test_the_log_holds_means_of_every_term(tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
    losses: list[dict[str, float]] = []

    def note(event: Event) -> None:
        if isinstance(event, StepDone):
            losses.append({name: float(value) for name, value in event.losses.items()})

    run = tiny.train(dataset, tmp_path / "run", device="cpu", callbacks=[note], stop_at=4)
    row = json.loads(run.folder.log.read_text().splitlines()[1])
    for name in losses[0]:
        assert row[name] == pytest.approx((losses[2][name] + losses[3][name]) / 2)
    assert row["G/total"] == pytest.approx(sum(row[n] for n in row if n.startswith("G/") and n != "G/total"))


def test_rows_after_the_checkpoint_are_written_once(tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
    run = tiny.train(dataset, tmp_path / "run", device="cpu", stop_at=4)
    with run.folder.log.open("a") as file:  # a run killed after step 6, in the middle of a line
        file.write('{"step": 6, "G/total": 1.0}\n{"step": 8, "G/to')
    run.train(device="cpu")
    assert [json.loads(line)["step"] for line in run.folder.log.read_text().splitlines()] == [2, 4, 6, 8, 10]


class TestCheckpoints:
    def test_one_of_another_format_is_refused_in_a_sentence(self, tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
        run = tiny.train(dataset, tmp_path / "run", stop_at=2)
        path = run.folder.list_checkpoints()[-1]
        header, tensors = read_header(path), read_tensors(path)
        write_tensors(path, tensors, {**header, "format": "gantoolkit checkpoint 1"})
        with pytest.raises(CheckpointError, match="is a 'gantoolkit checkpoint 1', this gantoolkit continues a"):
            Run.open(run.path).train()

    @pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "garbage"])
    def test_a_damaged_newest_one_is_named_and_the_one_before_used(
        self, damage: str, lively: Recipe, dataset: Path, tmp_path: Path
    ) -> None:
        whole = lively.train(dataset, tmp_path / "whole", device="cpu")
        run = lively.train(dataset, tmp_path / "run", device="cpu", stop_at=8)
        newest = run.folder.list_checkpoints()[-1]
        content = bytearray(newest.read_bytes())
        if damage == "flipped":
            content[-100] ^= 4
        damaged = {"truncated": content[:-500], "flipped": content, "empty": b"", "garbage": b"\x00" * 999}[damage]
        newest.write_bytes(damaged)
        with pytest.warns(UserWarning, match=f"{newest.name}: .*; the checkpoint before it is used"):
            run.train(device="cpu")
        assert_same_state(whole, run)

    def test_one_of_another_recipe_is_refused_with_the_difference(
        self, tiny: Recipe, dataset: Path, tmp_path: Path
    ) -> None:
        tiny.train(dataset, tmp_path / "run", device="cpu", stop_at=2)
        with pytest.raises(
            CheckpointError, match=r"holds a run of another recipe: cycle_weight is 3\.0 here and 10\.0 there"
        ):
            tiny.swap(cycle_weight=3.0).train(dataset, tmp_path / "run", device="cpu")
        other = tiny.swap(cycle_weight=3.0).train(dataset, tmp_path / "other", device="cpu", stop_at=1)
        stray = RunFolder(tmp_path / "run").list_checkpoints()[0]
        stray.replace(other.folder.checkpoints / "step-00000009.safetensors")
        with pytest.raises(
            CheckpointError, match=r"step-00000009\.safetensors: belongs to another recipe: cycle_weight"
        ):
            other.train(device="cpu")

    def test_they_hold_their_recipe_and_are_no_pickles(self, tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
        run = tiny.train(dataset, tmp_path / "run", device="cpu", stop_at=1)
        path = run.folder.list_checkpoints()[0]
        header = read_header(path)
        assert Recipe.from_toml(header["recipe"]).resolve() == run.recipe
        assert header["progress"]["step"] == 1
        with pytest.raises(CheckpointError, match="is no generator's file but 'gantoolkit checkpoint 2'"):
            load_generator(path)

    def test_a_full_disk_leaves_the_old_ones_whole(
        self, tiny: Recipe, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = tiny.train(dataset, tmp_path / "run", device="cpu", stop_at=2)
        before = {path: path.read_bytes() for path in run.folder.list_checkpoints()}

        def full(tensors, path, metadata) -> None:
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("gantoolkit.training.tensorfile.save_file", full)
            with pytest.raises(
                CheckpointError, match=r"cannot be written \(No space left on device\); it needs 0\.\d MB"
            ):
                run.train(device="cpu", stop_at=4)
        assert {path: path.read_bytes() for path in run.folder.list_checkpoints()} == before
        assert not list(run.folder.checkpoints.glob(".*"))
        run.train(device="cpu")
        assert read_header(run.folder.list_checkpoints()[-1])["progress"]["step"] == STEPS

    def test_a_finished_run_stays_finished(self, tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
        run = tiny.train(dataset, tmp_path / "run", device="cpu")
        before = final_state(run)
        assert run.train(device="cpu").reason == "finished"
        assert all(torch.equal(tensor, before[name]) for name, tensor in final_state(run).items())

    def test_the_data_may_move_but_must_be_as_many(self, tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
        tiny.train(dataset, tmp_path / "run", device="cpu")
        dataset.rename(tmp_path / "moved")
        (tmp_path / "run").rename(tmp_path / "run2")
        with pytest.raises(DataError, match="no such folder"):
            Run.open(tmp_path / "run2").train(device="cpu")
        assert Run.open(tmp_path / "run2", data=tmp_path / "moved").train(device="cpu").reason == "finished"
        few = make_dataset(tmp_path / "few", count_A=2, count_B=2)
        with pytest.raises(CheckpointError, match="stands at step 10, but these data make a run of 4 steps"):
            Run.open(tmp_path / "run2", data=few).train(device="cpu")


class TestFiles:
    def test_bad_files_are_counted_once_and_stand_in_the_report(
        self, tiny: Recipe, dataset: Path, tmp_path: Path
    ) -> None:
        (dataset / "trainA" / "03.png").write_text("broken")
        run = tiny.train(dataset, tmp_path / "run", device="cpu")
        assert "<tr><th>Unreadable files</th><td>1</td></tr>" in run.report.read_text()

    def test_too_many_end_the_run(self, tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
        for name in ("01", "02", "03"):
            (dataset / "trainA" / f"{name}.png").write_text("broken")
        with pytest.raises(
            DataError, match=r"files cannot be read, more than data\.max_bad_files = 1; the last: .*png is no"
        ):
            tiny.swap({"data.max_bad_files": 1}).train(dataset, tmp_path / "run", device="cpu")

    def test_a_bad_recipe_leaves_no_folder(self, tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
        with pytest.raises(RecipeError):
            tiny.swap({"generator.blocs": 3}).train(dataset, tmp_path / "run", device="cpu")
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("kind", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_finishes_the_step_saves_and_leaves_with_its_code(
    kind: signal.Signals, code: int, dataset: Path, tmp_path: Path
) -> None:
    command = [
        sys.executable,
        "-m",
        "gantoolkit",
        "train",
        "cyclegan",
        "--data",
        str(dataset),
        "--out",
        str(tmp_path / "run"),
    ]
    for setting in ("generator.width=4", "generator.blocks=1", "discriminator.layers=1", "data.crop_size=16"):
        command += ["--set", setting]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        log = tmp_path / "run" / "samples" / "step-00000000.png"
        for _ in range(600):  # until it trains; its speed is not what is tested
            if log.exists() or process.poll() is not None:
                break
            time.sleep(0.1)
        time.sleep(0.5)
        process.send_signal(kind)
        output, _ = process.communicate(timeout=120)
    assert process.returncode == code, output
    assert "Traceback" not in output
    assert "continue with: gantoolkit train --resume" in output
    checkpoint = RunFolder(tmp_path / "run").list_checkpoints()[-1]
    assert read_header(checkpoint)["progress"]["step"] > 0
