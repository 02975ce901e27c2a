"""Designs of ablations: the tables of the paper as a file, and files of users."""

from pathlib import Path

import pytest

from gantoolkit.errors import RecipeError
from gantoolkit.evaluation.ablation import SETS, find_design, list_designs, plan_trials, select_rows

OWN = """
metrics = ["psnr"]
differs = ["fewer images"]

[settings]
"data.crop_size" = 32
"data.load_size" = 36

[[rows]]
recipe = "cyclegan"
settings = { "generator.width" = 8 }

[[rows]]
recipe = "simgan"
differs = ["no history"]
"""


def test_the_design_of_the_paper_has_all_rows_of_its_tables() -> None:
    design = find_design("cityscapes", Path("bundle"))
    assert {row.recipe for row in design.rows} == {*SETS["ablations"], *SETS["baselines"]}
    trials = plan_trials(select_rows([], design), [0], {}, Path("out"), design)
    assert len(trials) == 13  # of the methods that learn one direction, two each
    for trial in trials:
        assert trial.recipe.resolve().data.crop_size == (64 if trial.name == "cogan" else 128)
        images = 800 * trial.recipe.training.epochs
        assert images // trial.recipe.training.batch_size >= (10_000 if trial.name == "cogan" else 40_000)
        parameters = trial.recipe.resolve().system.parameters
        if trial.name not in ("cogan", "pix2pix"):
            assert parameters["generator"].parameters["blocks"] == 6
        assert parameters.get("identity_weight", 0.0) == 0.0
        assert any("segmenter" in note for note in trial.differs)


def test_the_path_of_the_data_is_inserted(tmp_path: Path) -> None:
    design = find_design("cityscapes", tmp_path)
    assert f"fcn_score.segmenter={tmp_path}/segmenter.safetensors" in design.metrics
    (row,) = select_rows(["feature_gan"], design)
    assert row.settings["self_regularization_loss.features.weights"] == f"file:{tmp_path}/features.safetensors"


def test_changes_of_a_row_and_of_the_command_come_after_those_of_all_rows(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(OWN)
    design = find_design(str(path), tmp_path)
    trials = plan_trials(select_rows([], design), [1], {"data.load_size": 40}, tmp_path / "out", design)
    assert [trial.path.relative_to(tmp_path / "out").as_posix() for trial in trials] == [
        "cyclegan/seed-1",
        "simgan/seed-1-A2B",
        "simgan/seed-1-B2A",
    ]
    assert all(trial.recipe.data.crop_size == 32 and trial.recipe.data.load_size == 40 for trial in trials)
    assert trials[0].recipe.system.parameters["generator"]["width"] == 8
    assert trials[1].differs == ("fewer images", "no history")
    assert str(trials[1]) == "simgan A2B, seed 1"
    selection = select_rows(["cyclegan", "cogan"], design)
    assert [(row.recipe, bool(row.settings)) for row in selection] == [("cyclegan", True), ("cogan", False)]


def test_problems_of_a_design_are_named(tmp_path: Path) -> None:
    assert list_designs() == ["cityscapes"]
    with pytest.raises(RecipeError, match=r"no design 'cityscape'\. Did you mean 'cityscapes'\?"):
        find_design("cityscape", tmp_path)
    path = tmp_path / "own.toml"
    path.write_text("[[rows]]\nname = 'cyclegan'\n")
    with pytest.raises(RecipeError, match=r"own\.toml: 'rows\.0\.recipe'"):
        find_design(str(path), tmp_path)


def test_rows_of_one_recipe_are_refused(tmp_path: Path) -> None:
    """Their runs would share a folder."""
    path = tmp_path / "twice.toml"
    path.write_text('[[rows]]\nrecipe = "cyclegan"\n[[rows]]\nrecipe = "cyclegan"\nsettings = {cycle_weight = 5.0}\n')
    with pytest.raises(RecipeError, match="cyclegan is the recipe of two rows"):
        find_design(str(path), tmp_path)
