"""Every shipped recipe file passes its check and trains for two steps; systems resume exactly; reports list deviations."""

import ast
from pathlib import Path

import pytest
import torch
from _helpers.recipes import TINY_RECIPES
from _helpers.small import TINY, make_dataset

import gantoolkit
from gantoolkit.files.tensors import read_tensors
from gantoolkit.plugins import recipes, systems
from gantoolkit.recipes import Recipe, bigan, cyclegan, find_recipe, list_recipe_files
from gantoolkit.recipes.deviations import describe_deviations
from gantoolkit.runs.log import read_log

FILES = list_recipe_files()


@pytest.mark.parametrize("name", FILES)
def test_every_recipe_file_passes_the_check_and_takes_two_steps(name: str, dataset: Path, tmp_path: Path) -> None:
    recipe = find_recipe(name)
    recipe.check()
    small = recipe.swap({**TINY, "training.log_every": 1, "data.resize": "square"})
    # The networks are small, but the objective is that of the file.
    objective = (
        "adversarial_weight",
        "cycle_weight",
        "identity_weight",
        "adversarial_cycle_weight",
        "adversarial_loss.name",
    )
    assert not set(small.diff(recipe)) & set(objective)
    run = gantoolkit.train(small, dataset, out=tmp_path / "run", stop_at=2)
    rows = read_log(run.folder.log)
    assert [row["step"] for row in rows] == [1, 2]
    assert sorted(path.stem for path in run.folder.generators.iterdir()) == ["A2B", "B2A"]


@pytest.mark.parametrize("name", cyclegan.ablations)
def test_the_file_of_an_ablation_equals_the_ablation(name: str) -> None:
    from_file = find_recipe(f"ablations/{name}")
    assert from_file.diff(cyclegan.ablation(name)) == {}
    assert from_file.name == cyclegan.ablation(name).name


def test_diff_shows_exactly_what_an_ablation_changes() -> None:
    assert {name: cyclegan.ablation(name).diff(cyclegan()) for name in cyclegan.ablations} == {
        "cycle_alone": {"adversarial_weight": (0.0, 1.0)},
        "gan_alone": {"cycle_weight": (0.0, 10.0)},
        "gan_forward": {"cycle_weight": ([10.0, 0.0], 10.0)},
        "gan_backward": {"cycle_weight": ([0.0, 10.0], 10.0)},
        "adversarial_cycle": {"cycle_weight": (0.0, 10.0), "adversarial_cycle_weight": (1.0, 0.0)},
        "nll": {
            "adversarial_loss.name": ("nll", "lsgan"),
            "adversarial_loss.real_target": (None, 1.0),
            "adversarial_loss.fake_target": (None, 0.0),
        },
        "no_pool": {"image_pool.name": ("none", "history"), "image_pool.size": (None, 50)},
        "identity": {"identity_weight": (5.0, 0.0)},
        "no_identity": {},
    }
    assert cyclegan.ablation("no_identity", fidelity="pytorch").diff(cyclegan(fidelity="pytorch")) == {
        "identity_weight": (0.0, 5.0)
    }


@pytest.mark.parametrize("name", TINY_RECIPES)
def test_every_system_trains_stops_resumes_and_translates(name: str, tmp_path: Path) -> None:
    """A run that was stopped and resumed ends in the same weights, bit for bit, and its generators translate."""
    data = make_dataset(tmp_path / "images", count_A=4, count_B=4)
    recipe = TINY_RECIPES[name].swap({"training.batch_size": 2, "training.checkpoint_every": 1})
    uninterrupted = gantoolkit.train(recipe, data, out=tmp_path / "uninterrupted")
    gantoolkit.train(recipe, data, out=tmp_path / "resumed", stop_at=1)
    resumed = gantoolkit.train(recipe, data, out=tmp_path / "resumed")
    for path in uninterrupted.folder.generators.iterdir():
        tensors, others = read_tensors(path), read_tensors(resumed.folder.generators / path.name)
        assert tensors.keys() == others.keys()
        assert all(torch.equal(tensors[key], others[key]) for key in tensors)
        translator = resumed.translator(path.stem)
        image = data / "testA" / "00.png"
        assert translator(image) == translator(image)
        assert translator(image).size == (40, 36)
    assert uninterrupted.folder.newest_checkpoint(uninterrupted.recipe).progress["step"] == 4
    assert uninterrupted.report.stat().st_size > 1000


def test_deviations_from_the_paper_are_described() -> None:
    assert describe_deviations(bigan()) == []
    sentences = describe_deviations(
        cyclegan(fidelity="pytorch", generator="unet", data={"crop_size": 128}, training={"log_every": 3})
    )
    assert sentences is not None
    assert {sentence.partition(":")[0] for sentence in sentences} == {
        "generator is unet, the paper's is resnet",
        "identity_weight is 5.0, the paper's is 0.0",
        "scheduler.zero is last, the paper's is after",
        "data.crop_size is 128, the paper's is 256",
    }
    assert any("Side in pixels of the random training crop" in sentence for sentence in sentences)
    assert describe_deviations(Recipe.from_mapping({**cyclegan().to_mapping(), "base": ""})) is None


def test_the_report_lists_the_deviations(dataset: Path, tmp_path: Path) -> None:
    run = gantoolkit.train(cyclegan(fidelity="lua").swap(TINY), dataset, out=tmp_path / "run", stop_at=1)
    page = run.report.read_text()
    assert "Deviations from the paper" in page
    assert "<li>alternating is on, the paper&#39;s is off: Use one optimizer per network" in page
    exact = cyclegan().resolve()
    assert describe_deviations(exact) == []


def test_nothing_in_training_inference_or_cli_names_a_system() -> None:
    names = {*systems.names(), *recipes.names()}
    root = Path(gantoolkit.__file__).parent
    paths = [path for folder in ("training", "inference", "cli") for path in (root / folder).rglob("*.py")]
    assert len(paths) > 15
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            name = {
                ast.Constant: lambda n: n.value,
                ast.Name: lambda n: n.id,
                ast.Attribute: lambda n: n.attr,
                ast.alias: lambda n: n.name.rpartition(".")[2],
                ast.ImportFrom: lambda n: "cyclegan" if (n.module or "").startswith("gantoolkit.systems") else None,
            }.get(type(node), lambda n: None)(node)
            assert not isinstance(name, str) or name.lower() not in names, f"{path}: {name}"
