"""`~` in every path that a user gives, in Python, in recipes and on the command line."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from _helpers.small import make_dataset, make_image, make_tiny, official_resnet

import gantoolkit
from gantoolkit.blocks.features import TimmFeatures
from gantoolkit.blocks.metrics.palette import find_palette
from gantoolkit.blocks.metrics.segmenter import load_segmenter
from gantoolkit.data import find_images, open_dataset, read_image, write_image
from gantoolkit.data.cache import find_cache_folder
from gantoolkit.data.evaluation_images import EvaluationImages
from gantoolkit.errors import DataError, GantoolkitError
from gantoolkit.files.paths import user_path
from gantoolkit.files.untrusted_weights import read_weights
from gantoolkit.inference import Translator, translate_files
from gantoolkit.inference.sources import open_sources
from gantoolkit.inference.targets import plan_targets
from gantoolkit.official import convert_official
from gantoolkit.recipes import Recipe, find_recipe
from gantoolkit.run import Run
from gantoolkit.serving import open_models

PALETTE = """[[classes]]
name = "sky"
color = [0, 0, 255]
[[classes]]
name = "road"
color = [9, 9, 9]
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    make_dataset(home / "images", count_A=4)
    gantoolkit.train(make_tiny(), home / "images", home / "run", device="cpu", stop_at=1)
    torch.save(official_resnet(1, 2, False, True, ""), home / "official.pth")
    (home / "mine.toml").write_text('recipe = "cyclegan"\nidentity_weight = 2.5\n')
    (home / "tiny.toml").write_text(make_tiny().to_toml())
    (home / "palette.toml").write_text(PALETTE)
    return home


@pytest.fixture
def home(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's home folder, with a run, images, weights and TOML files; the working directory is another folder."""
    home = tmp_path / "home"
    shutil.copytree(files, home)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(home))
    return home


class TestUserPath:
    @pytest.mark.parametrize("convert", [str, Path])
    def test_home(self, convert, home: Path) -> None:
        assert user_path(convert("~")) == home
        assert user_path(convert("~/a/b")) == home / "a" / "b"

    @pytest.mark.parametrize("text", ["", ".", "a/~", "/~/b", "a~b", "C:~", "../~"])
    def test_other_paths_stay(self, text: str, home: Path) -> None:
        assert user_path(text) == Path(text)

    @pytest.mark.parametrize("text", ["./~", "./~/x", ".//~", "./~root"])
    def test_a_folder_of_that_name(self, text: str, home: Path) -> None:
        path = user_path(text)
        assert path == Path.cwd() / text
        assert user_path(path) == path

    def test_a_home_of_another_user(self, home: Path) -> None:
        pwd = pytest.importorskip("pwd", reason="this system has no users with homes")
        user = pwd.getpwuid(os.getuid())
        assert user_path(f"~{user.pw_name}/x") == Path(user.pw_dir) / "x"

    def test_unknown_user(self, home: Path) -> None:
        with pytest.raises(
            DataError, match=r"^~nobody-here/x: there is no user 'nobody-here'; write \./~nobody-here/x"
        ):
            user_path("~nobody-here/x")

    def test_an_existing_file_needs_no_user(self, home: Path) -> None:
        Path("~backup.png").touch()
        assert user_path("~backup.png") == Path.cwd() / "~backup.png"

    def test_no_home(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("HOME")
        monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # a user id without an entry
        with pytest.raises(DataError, match=r"^~/x: your home folder is not known; set HOME"):
            user_path("~/x")


@pytest.fixture
def _no_folder_named_tilde(home: Path):
    yield
    assert not [path for path in home.parent.rglob("*") if path.name.startswith("~")]


@pytest.mark.usefixtures("_no_folder_named_tilde")
class TestPython:
    def test_runs(self, home: Path) -> None:
        run = gantoolkit.train(
            find_recipe("~/mine.toml").swap(make_tiny().to_mapping()), "~/images", "~/new", device="cpu"
        )
        assert run.path == home / "new"
        assert run.data == home / "images"
        assert run.folder.read_metadata()["data"] == str(home / "images")
        assert Run.open("~/new", data="~/images").data == home / "images"
        assert (
            Run.open("~/new").export("A2B", "~/a.safetensors", "safetensors", images=["~/images/testA"]).path.is_file()
        )

    def test_translators(self, home: Path) -> None:
        for translator in (
            gantoolkit.load("~/run", "A2B", device="cpu"),
            gantoolkit.load("~/run/generators/A2B.safetensors", device="cpu"),
            Translator.load("~/run/generators/A2B.safetensors", device="cpu"),
        ):
            image = translator("~/images/testA/00.png")
            assert np.array_equal(np.asarray(image), np.asarray(translator(home / "images" / "testA" / "00.png")))
        assert list(open_models(["horses=~/run"], device="cpu")) == ["horses"]
        assert list(open_models(["~/run"], device="cpu")) == ["run"]

    @pytest.mark.parametrize("source", ["~/images/testA", "~/images/test*/0?.png", "~/images/testA/00.png"])
    def test_sources(self, source: str, home: Path) -> None:
        translator = gantoolkit.load(home / "run", "A2B", device="cpu")
        with open_sources([source], out="~/images/out") as sources:
            targets = plan_targets(sources, "~/images/out")
            assert all(not result.problem for result in translate_files(translator, targets))
        assert find_images("~/images/out")

    def test_data(self, home: Path) -> None:
        assert len(open_dataset("~/images").files("A")) == 4
        assert len(EvaluationImages.open("~/images", make_tiny().data).files("A")) == 2
        write_image(make_image(0), "~/new.png")
        assert read_image("~/new.png").size == (40, 36)

    def test_cache_folder(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GANTOOLKIT_CACHE", "~/cache")  # as in a file of environment variables, which no shell reads
        assert find_cache_folder() == home / "cache"

    def test_weights_and_toml(self, home: Path) -> None:
        assert read_weights("~/official.pth")
        assert convert_official("~/official.pth", "~/b.safetensors").path == home / "b.safetensors"
        assert Recipe.from_toml(Path("~/mine.toml")).system.parameters["identity_weight"] == 2.5
        assert find_palette("~/palette.toml").classes == ("sky", "road")

    def test_blocks(self, home: Path) -> None:
        with pytest.raises(GantoolkitError, match=f"{home}/none.safetensors"):
            load_segmenter("~/none.safetensors")
        with pytest.raises(GantoolkitError, match=f"{home}/none.pth"):
            TimmFeatures(weights="file:~/none.pth")(torch.zeros(1, 3, 32, 32), ["relu1_1"])


@pytest.mark.usefixtures("_no_folder_named_tilde")
class TestCommandLine:
    @pytest.mark.parametrize(
        "arguments",
        [
            ["train", "~/tiny.toml", "--data=~/images", "--out=~/out", "--stop-at=1", "--device=cpu"],
            ["train", "--resume=~/run", "--data=~/images", "--stop-at=1"],
            ["translate", "~/run", "~/images/testA", "~/images/test*/*.png", "--direction=A2B", "--out=~/out"],
            ["export", "~/run", "--direction=A2B", "--format=safetensors", "--out=~/out/a", "--images=~/images/testA"],
            ["evaluate", "~/run", "--data=~/images", "--out=~/out", "--metric=l1", "--device=cpu"],
            ["data", "check", "~/images", "--recipe=~/mine.toml"],
            ["data", "stats", "~/images", "--sheet=~/out/sheet.png"],
            ["data", "pair", "~/images/testA", "~/images/testB", "--out=~/out"],
            ["data", "pack", "~/images", "--side=8", "--palette=~/palette.toml", "--out=~/out"],
            ["card", "~/run", "--out=~/out/README.md"],
            ["show", "~/run"],
            ["import", "official", "~/official.pth", "--out=~/out/a.safetensors"],
            ["plugins", "new", "gantoolkit-stripes", "--kind=generators", "--out=~/out"],
        ],
        ids=lambda arguments: " ".join(arguments[:2]),
    )
    def test_commands(self, arguments: list[str], command, home: Path) -> None:
        code, _, errors = command(*arguments)
        assert code in (0, 3), errors
        assert (home / "out").exists() == any("~/out" in argument for argument in arguments)
        assert not list(Path.cwd().iterdir())

    @pytest.mark.parametrize(
        "arguments",
        [
            ["study", "serve", "--real=~/none", "--fake", "a=~/none"],
            ["study", "report", "~/none", "--out=~/out"],
            ["serve", "a=~/none"],
            ["train-segmenter", "--photographs=~/none", "--maps=~/none", "--out=~/out"],
            ["ablate", "~/none.toml", "--data=~/images", "--out=~/out"],
            ["plan", "~/none.toml"],
            ["bench", "~/none.toml"],
        ],
        ids=lambda arguments: " ".join(arguments[:2]),
    )
    def test_missing_files_are_named_with_the_home(self, arguments: list[str], command, home: Path) -> None:
        code, _, errors = command(*arguments)
        assert code == 2
        assert f"{home}/none" in errors

    def test_unknown_user(self, command, home: Path) -> None:
        code, _, errors = command("translate", "~/run", "~/images", "--direction=A2B", "--out=~nobody-here/out")
        assert code == 2
        assert errors.startswith("error: ~nobody-here/out: there is no user 'nobody-here'")
        assert errors.count("\n") == 1


def test_a_folder_named_tilde_on_the_command_line(command, home: Path) -> None:
    code, _, errors = command("translate", home / "run", "~/images/testA", "--direction=A2B", "--out=./~")
    assert code == 0, errors
    assert len(list((Path.cwd() / "~").glob("*.png"))) == 2
    code, _, errors = command("translate", home / "run", "./~", "--direction=A2B", "--out=again")
    assert code == 0, errors
    assert len(list(Path("again").glob("*.png"))) == 2
