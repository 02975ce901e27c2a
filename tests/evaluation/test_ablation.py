"""`gantoolkit ablate`: resuming runs, the table, and the comparison with the paper."""

import csv
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from _helpers.small import make_dataset

from gantoolkit.cli.settings import parse_setting
from gantoolkit.errors import DataError, RecipeError
from gantoolkit.evaluation.ablation import (
    SETS,
    Ablation,
    Row,
    describe_order,
    expand_names,
    plan_trials,
    select_rows,
    table_cells,
)
from gantoolkit.evaluation.ablation.processes import LOG
from gantoolkit.evaluation.ablation.rows import SEGMENTATION, Effort
from gantoolkit.evaluation.tables import Column, read_scores
from gantoolkit.run import Run

pytestmark = pytest.mark.slow(reason="trains several runs")

SMALL = ["generator.width=4", "discriminator.width=4", "data.load_size=20", "data.crop_size=16", "training.epochs=1"]
WORDS = [word for setting in SMALL for word in ("--set", setting)]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "pairs", count_A=3, count_B=3)


def make_row(name: str, values: tuple[float, ...], paper: tuple[float, ...] = (), notes: tuple[str, ...] = ()) -> Row:
    return Row(
        name,
        "A2B",
        {score: [value] for score, value in zip(SEGMENTATION, values, strict=True)},
        dict(zip(SEGMENTATION, paper, strict=False)),
        notes,
    )


def test_sets_contain_the_recipes_of_the_paper() -> None:
    assert expand_names(["ablations", "cyclegan", "baselines"]) == list(
        dict.fromkeys([*SETS["ablations"], *SETS["baselines"]])
    )
    for name, count in (("ablations", 5), ("baselines", 6)):
        assert len(SETS[name]) == count
    for names in SETS.values():
        for trial in plan_trials(select_rows(names, None), [0], {}, Path("out")):
            assert trial.recipe.training.seed == 0


def test_one_directional_recipes_are_trained_in_both_directions() -> None:
    trials = plan_trials(select_rows(["simgan", "cyclegan"], None), [3, 4], {}, Path("out"))
    assert [str(trial.path) for trial in trials] == [
        "out/simgan/seed-3-A2B",
        "out/simgan/seed-3-B2A",
        "out/cyclegan/seed-3",
        "out/simgan/seed-4-A2B",
        "out/simgan/seed-4-B2A",
        "out/cyclegan/seed-4",
    ]
    with pytest.raises(RecipeError, match="cycle_gan"):
        plan_trials(select_rows(["cycle_gan"], None), [0], {}, Path("out"))
    with pytest.raises(RecipeError, match="crop_size"):
        plan_trials(select_rows(["cyclegan"], None), [0], {"data.crop_size": 30, "data.load_size": 30}, Path("out"))


def test_command_resumes_where_it_stopped(command, pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "table"
    arguments = ["ablate", "ablations/cycle_alone", "cyclegan", "--data", pairs, "--out", out, *WORDS]
    arguments += ["--set", "generator.blocks=1", "--set", "discriminator.layers=1", "--device", "cpu"]
    changes = dict(map(parse_setting, [*SMALL, "generator.blocks=1", "discriminator.layers=1"]))
    trials = plan_trials(select_rows(["ablations/cycle_alone", "cyclegan"], None), [0], changes, out)
    for trial, step in zip(trials, (3, 2), strict=True):
        Run.start(trial.recipe, pairs, trial.path).train(device="cpu", stop_at=step)
    code, output, _ = command(*arguments)
    assert code == 0
    assert "training cyclegan, seed 0" in output
    assert "step 3: saved" in (trials[1].path / LOG).read_text()
    assert not (trials[0].path / LOG).exists()  # was finished
    assert "A → B" in output
    table = (out / "table.md").read_text()
    assert "| ablations/cycle_alone | 1 |" in table
    assert "| cyclegan | 1 |" in table
    assert "psnr" in table
    assert "Trained on cpu, " in table
    assert not re.search(r'(src|href)="(?!data:|#)', (out / "report.html").read_text())

    # A third call trains no step and writes no scores.
    files = [*out.rglob("scores.json"), *out.rglob("step-*.safetensors")]
    times = {path: path.stat().st_mtime_ns for path in files}
    code, output, _ = command(*arguments)
    assert code == 0
    assert "training" not in output
    assert times == {path: path.stat().st_mtime_ns for path in times}

    # Another seed is added to the table, whose means are over both seeds.
    code, _, _ = command(*arguments, "--seeds", 1)
    assert code == 0
    assert "| cyclegan | 2 |" in (out / "table.md").read_text()
    with (out / "table.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if (row["recipe"], row["score"]) == ("cyclegan", "psnr")]
    for row in rows:
        values = [
            read_scores(out / "cyclegan" / f"seed-{seed}" / "scores" / "scores.json")[0]
            .directions[row["direction"]]
            .scores["psnr"]
            .value
            for seed in (0, 1)
        ]
        assert float(row["mean"]) == pytest.approx(sum(values) / 2)
        assert (float(row["lowest"]), float(row["highest"])) == (min(values), max(values))

    # The page shows the first seed, whichever call trained it.
    page = (out / "report.html").read_text()
    assert "Ablation, seed 0" in page
    assert "cyclegan, seed 0: worst, median and best images" in page
    assert "seed 1" not in page

    # Evaluating one seed again with other metrics keeps the scores of the other seed in the table.
    code, _, _ = command(*arguments, "--metric", "label_maps", "--metric", "l1")
    assert code == 0
    with (out / "table.csv").open(newline="", encoding="utf-8") as file:
        counts = {
            row["score"]: row["seeds"]
            for row in csv.DictReader(file)
            if (row["recipe"], row["direction"]) == ("cyclegan", "B2A")
        }
    assert (counts["psnr"], counts["pixel_accuracy"], counts["l1"]) == ("1", "1", "2")
    assert "| cyclegan | 1–2 |" in (out / "table.md").read_text()


def test_table_shows_the_scores_of_the_paper_and_the_differences(command, pairs: Path, tmp_path: Path) -> None:
    """Photo → labels, scored by the colors of the label maps."""
    out = tmp_path / "table"
    code, output, stderr = command(
        *("ablate", "pix2pix", "--data", pairs, "--out", out, *WORDS, "--set", "generator.depth=3"),
        *("--set", "discriminator.layers=1", "--metric", "label_maps", "--device", "cpu"),
    )
    assert code == 0, stderr
    assert "0.85 / 0.40 / 0.32 †" in output  # photo → labels of pix2pix, table 3
    assert "0.71 / 0.25 / 0.18" not in output  # labels → photo was not evaluated
    expected = (
        "3 training images at 16×16, 2 test images, steps as in the table; the paper: 2975 training images at 128×128"
    )
    assert expected in output
    assert sorted(path.name for path in (out / "pix2pix").iterdir()) == ["seed-0-A2B", "seed-0-B2A"]


def test_order_is_compared_with_the_paper() -> None:
    rows = [
        make_row("simgan", (0.5, 0.2, 0.1), (0.6, 0.3, 0.2)),
        make_row("bigan", (0.6, 0.1, 0.1), (0.5, 0.2, 0.1)),
        make_row("ablations/gan_alone", (0.1, 0.9, 0.1), (0.9, 0.1, 0.9)),  # in another table: not compared
        make_row("not in the paper", (0.9, 0.9, 0.9)),
    ]
    sentences = list(describe_order(rows))
    assert sentences == [
        "baselines, pixel_accuracy: 1 of 1 pairs are in the opposite order: bigan over simgan",
        "baselines, class_accuracy: all 1 pairs are in the same order as in the paper (ties aside)",
        "baselines, class_iou: all 1 pairs are in the same order as in the paper (ties aside)",
    ]
    assert not list(describe_order(rows[2:]))
    efforts = (Effort(0, 10, 10, 1.0, "cpu"), Effort(1, 5, 10, 1.0, "cpu"))
    unfinished = replace(rows[3], efforts=efforts)
    assert list(describe_order([unfinished])) == [
        "1 of 1 rows are not trained to their end, and their order may change"
    ]
    heading, (cells,) = table_cells([unfinished])
    assert dict(zip(heading, cells, strict=True))["steps"] == "5 of 10"


def test_cells_have_the_format_of_the_paper() -> None:
    heading, lines = table_cells(
        [
            Row(
                "one",
                "A2B",
                {
                    **dict(zip(SEGMENTATION, ([0.5, 0.7], [0.1, 0.2], [0.0, 0.1]), strict=True)),
                    Column("psnr", "dB"): [9.0, 11.0],
                },
                dict(zip(SEGMENTATION, (0.52, 0.17, 0.11), strict=True)),
                ("smaller",),
            )
        ]
    )
    assert heading[2:] == ["per-pixel acc. / per-class acc. / class IoU", "lowest … highest seed", "paper", "psnr (dB)"]
    assert lines == [
        ["one", "2", "0.60 / 0.15 / 0.05", "0.50…0.70 / 0.10…0.20 / 0.00…0.10", "0.52 / 0.17 / 0.11 †", "10.0"]
    ]


def test_damaged_scores_are_named(command, pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "table"
    arguments = [
        "ablate",
        "ablations/cycle_alone",
        "--data",
        pairs,
        "--out",
        out,
        *WORDS,
        "--set",
        "generator.blocks=1",
    ]
    assert command(*arguments)[0] == 0
    (about,) = out.rglob("about.json")
    about.write_text("{")
    code, _, stderr = command(*arguments)
    assert code == 2
    assert "about.json" in stderr
    assert "remove its folder to evaluate again" in stderr
    shutil.rmtree(about.parent)
    assert command(*arguments)[0] == 0
    with pytest.raises(DataError, match="contains no evaluated run"):
        Ablation(tmp_path / "nothing", pairs).write()
