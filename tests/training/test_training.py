"""Whole runs: exact resume, the files that a run writes, and errors."""

import csv
import json
from pathlib import Path

import pytest
import torch
from _helpers.small import make_dataset
from _helpers.states import assert_same_state, rows
from PIL import Image

import gantoolkit
from gantoolkit.errors import DataError, RecipeError
from gantoolkit.recipes import Recipe
from gantoolkit.run import Run
from gantoolkit.runs import RunFolder
from gantoolkit.training import CheckpointSaved, Event, RunEnded, SamplesDrawn, StepDone

STEPS = 10


@pytest.mark.parametrize("stops", [[5], [1, 2, 7], [3], [4, 9]])
def test_a_stopped_run_continues_bit_for_bit(stops: list[int], lively: Recipe, dataset: Path, tmp_path: Path) -> None:
    whole = gantoolkit.train(lively, dataset, tmp_path / "whole", device="cpu")
    for stop in stops:
        parts = gantoolkit.train(lively, dataset, tmp_path / "parts", device="cpu", stop_at=stop)
    parts.train(device="cpu")
    assert_same_state(whole, parts)
    assert rows(whole) == rows(parts)
    assert [row["step"] for row in rows(whole)] == [2, 4, 6, 8, 10]


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
def test_other_blocks_resume_exactly(changes, lively: Recipe, dataset: Path, tmp_path: Path) -> None:
    recipe = lively.swap(changes)
    whole = gantoolkit.train(recipe, dataset, tmp_path / "whole", device="cpu")
    gantoolkit.train(recipe, dataset, tmp_path / "parts", device="cpu", stop_at=3)
    parts = Run.open(tmp_path / "parts")
    parts.train(device="cpu", stop_at=7)
    parts.train(device="cpu")
    assert_same_state(whole, parts)


def test_the_number_of_workers_does_not_change_the_result(lively: Recipe, dataset: Path, tmp_path: Path) -> None:
    without = gantoolkit.train(lively, dataset, tmp_path / "without", device="cpu", workers=0)
    gantoolkit.train(lively, dataset, tmp_path / "with", device="cpu", workers=2, stop_at=4)
    with_workers = gantoolkit.train(lively, dataset, tmp_path / "with", device="cpu", workers=1)
    assert_same_state(without, with_workers)


def test_paired_data_and_pix2pix_resume_exactly(tiny_pix2pix: Recipe, tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "pairs", count_A=5, count_B=5)
    whole = gantoolkit.train(tiny_pix2pix, data, tmp_path / "whole", device="cpu")
    gantoolkit.train(tiny_pix2pix, data, tmp_path / "parts", device="cpu", stop_at=6)
    parts = gantoolkit.train(tiny_pix2pix, data, tmp_path / "parts", device="cpu")
    assert_same_state(whole, parts)
    assert [path.stem for path in parts.folder.generators.iterdir()] == ["A2B"]


def test_a_run_restores_the_global_random_state(tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    gantoolkit.train(tiny, dataset, tmp_path / "run", device="cpu", stop_at=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.are_deterministic_algorithms_enabled()


def test_events_and_files_of_a_run(tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    gantoolkit.train(tiny, dataset, tmp_path / "run", device="cpu", callbacks=[events.append])
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
    metadata = json.loads(folder.metadata_file.read_text())
    assert metadata["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert metadata["plugins"]["gantoolkit"]
    with folder.table.open() as file:
        table = list(csv.DictReader(file))
    assert [row["step"] for row in table] == ["2", "4", "6", "8", "10"]
    assert float(table[0]["lr/G"]) == 2e-4
    assert float(table[-1]["lr/G"]) == pytest.approx(1e-4)
    assert list(folder.tensorboard.glob("events.out.tfevents.*"))
    with Image.open(folder.samples / "step-00000010.png") as grid:
        assert grid.size == (6 * 16 + 5 * 2, 18 + 2 * 16 + 2)
    assert {path.name for path in folder.path.rglob("*") if path.name.endswith(".part")} == set()


def test_the_report_is_one_self_contained_page(tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
    page = gantoolkit.train(tiny, dataset, tmp_path / "run", device="cpu").report.read_text()
    assert page.count("data:image/png;base64,") == 4
    assert page.count("<svg") == 2
    assert "Step 10 of 10, finished" in page
    assert "crop_size = 16" in page
    assert 'src="http' not in page
    assert 'href="http' not in page.replace('xlink:href="#', "")


def test_the_log_contains_the_mean_of_every_term(tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
    losses: list[dict[str, float]] = []

    def record(event: Event) -> None:
        if isinstance(event, StepDone):
            losses.append({name: float(value) for name, value in event.losses.items()})

    run = gantoolkit.train(tiny, dataset, tmp_path / "run", device="cpu", callbacks=[record], stop_at=4)
    row = json.loads(run.folder.log.read_text().splitlines()[1])
    for name in losses[0]:
        assert row[name] == pytest.approx((losses[2][name] + losses[3][name]) / 2)
    assert row["G/total"] == pytest.approx(sum(row[n] for n in row if n.startswith("G/") and n != "G/total"))


def test_rows_after_the_checkpoint_are_not_duplicated(tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
    run = gantoolkit.train(tiny, dataset, tmp_path / "run", device="cpu", stop_at=4)
    with run.folder.log.open("a") as file:  # a run killed after step 6, in the middle of a line
        file.write('{"step": 6, "G/total": 1.0}\n{"step": 8, "G/to')
    run.train(device="cpu")
    assert [json.loads(line)["step"] for line in run.folder.log.read_text().splitlines()] == [2, 4, 6, 8, 10]


class TestFiles:
    def test_bad_files_are_counted_once_in_the_report(self, tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
        (dataset / "trainA" / "03.png").write_text("broken")
        run = gantoolkit.train(tiny, dataset, tmp_path / "run", device="cpu")
        assert "<tr><th>Unreadable files</th><td>1</td></tr>" in run.report.read_text()

    def test_too_many_bad_files_end_the_run(self, tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
        for name in ("01", "02", "03"):
            (dataset / "trainA" / f"{name}.png").write_text("broken")
        with pytest.raises(
            DataError, match=r"files cannot be read, more than data\.max_bad_files = 1; the last: .*png is not"
        ):
            gantoolkit.train(tiny.swap({"data.max_bad_files": 1}), dataset, tmp_path / "run", device="cpu")

    def test_a_bad_recipe_leaves_no_folder(self, tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
        with pytest.raises(RecipeError):
            gantoolkit.train(tiny.swap({"generator.blocs": 3}), dataset, tmp_path / "run", device="cpu")
        assert not (tmp_path / "run").exists()
