from pathlib import Path

import pytest
import torch
from torch import nn

from gantoolkit.cli.settings import parse_setting
from gantoolkit.errors import GantoolkitError, PluginError, RecipeError
from gantoolkit.recipes import Recipe, cyclegan, find_recipe, list_recipe_files, pix2pix


def test_defaults_are_those_of_the_paper() -> None:
    recipe = cyclegan().resolve()
    parameters = recipe.system.parameters
    assert parameters["generator"].to_mapping() == {
        "name": "resnet",
        "blocks": 9,
        "width": 64,
        "norm": "instance",
        "padding": "reflect",
        "dropout": 0.0,
        "upsampling": "transposed",
    }
    assert parameters["cycle_weight"] == 10.0
    assert parameters["identity_weight"] == 0.0
    assert parameters["image_pool"].parameters == {"size": 50}
    assert recipe.optimizer.parameters == {"lr": 2e-4, "beta1": 0.5, "beta2": 0.999, "weight_decay": 0.0}
    assert (recipe.data.load_size, recipe.data.crop_size, recipe.data.flip) == (286, 256, True)
    assert (recipe.training.epochs, recipe.training.batch_size) == (200, 1)


@pytest.mark.parametrize("make", [cyclegan, pix2pix, *(lambda n=n: cyclegan.ablation(n) for n in cyclegan.ablations)])
def test_toml_round_trip(make) -> None:
    recipe = make().check()
    assert Recipe.from_toml(recipe.to_toml()).resolve() == recipe


def test_a_file_holds_only_the_changes(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('recipe = "cyclegan"\nidentity_weight = 5.0\n[generator]\nblocks = 6\n[data]\ncrop_size = 128\n')
    assert find_recipe(str(file)).diff(cyclegan()) == {
        "identity_weight": (5.0, 0.0),
        "generator.blocks": (6, 9),
        "data.crop_size": (128, 256),
    }


def test_naming_a_block_resets_its_parameters() -> None:
    recipe = cyclegan().swap({"generator.blocks": 3, "generator.width": 8})
    assert recipe.swap({"generator.blocks": 6}).system.parameters["generator"] == {
        "name": "resnet",
        "blocks": 6,
        "width": 8,
    }
    assert recipe.swap(generator="resnet").diff(cyclegan()) == {}
    assert recipe.swap({"generator.name": "resnet"}).diff(cyclegan()) == {}
    assert recipe.swap(generator={"name": "resnet", "blocks": 2}).diff(cyclegan()) == {"generator.blocks": (2, 9)}


def test_recipes_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        cyclegan().name = "other"  # type: ignore[misc]


BAD_CHANGES = [
    ({"generator": "resent"}, "generators: no 'resent'. Did you mean 'resnet'? Known: resnet, unet"),
    (
        {"generator.n_block": 3},
        "cyclegan.generator (resnet): 'n_block' is not a parameter; did you mean 'blocks'? (int, ≥ 1, default 9)",
    ),
    ({"identty_weight": 1.0}, "cyclegan: 'identty_weight' is not a parameter; did you mean 'identity_weight'?"),
    ({"trainng": 1}, "cyclegan: 'trainng' is not a field; did you mean 'training'?"),
    ({"training.epoch": 1}, "cyclegan.training: 'epoch' is not a field; did you mean 'epochs'?"),
    ({"training.epochs": 0}, "cyclegan.training: 'epochs' cannot be 0; it takes int, ≥ 1, default 200"),
    ({"data.crop_size": "big"}, "cyclegan.data: 'crop_size' cannot be 'big'; it takes int, ≥ 1, default 256"),
    (
        {"data.crop_size": 300},
        "cyclegan.data: crop_size 300 is larger than load_size 286; set data.load_size to 300 or more",
    ),
    (
        {"data.clip_A": True},
        "cyclegan.data: clip_A is for values, and range_A is 8-bit; set data.range_A to two values, such as [0.0, 5.0]",
    ),
    (
        {"data.range_B": "16-bit", "data.nodata_B": 0.0},
        "cyclegan.data: nodata_B is for values, and range_B is 16-bit; ",
    ),
    ({"data.unit_A": "HU"}, "cyclegan.data: unit_A is for values, and range_A is 8-bit; "),
    (
        {"data.crop_size": 130},
        "cyclegan: data.crop_size is 130, but G_AB accepts only multiples of 4; set it to 128 or 132",
    ),
    ({"data.crop_size": 16}, "cyclegan: its networks do not accept crops of 16×16 (data.crop_size)"),
    (
        {"generator": "unet", "data.crop_size": 128},
        "crop_size is 128, but G_AB accepts only multiples of 256; set it to 256",
    ),
    (
        {"identity_weight": 5.0, "data.channels_A": 1},
        "set identity_weight = 0, or give data.channels_A and data.channels_B one value",
    ),
    ({"adversarial_weight": 0.0, "cycle_weight": 0.0}, "there is nothing to learn"),
    ({"cycle_weight": -1.0}, "'cycle_weight' cannot be -1.0"),
    ({"cycle_weight.A": 1.0}, "'cycle_weight' cannot be {'A': 1.0}; it takes float ≥ 0"),
    ({"discriminator": "lsgan"}, "discriminators: no 'lsgan'."),
    ({"optimizer.lr": "2e-4"}, "cyclegan.optimizer (adam): 'lr' cannot be '2e-4'"),
    ({"scheduler": "linear"}, "schedulers: no 'linear'."),
    ({"data.resize": "fit"}, "'resize' cannot be 'fit'"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_CHANGES, ids=[str(changes) for changes, _ in BAD_CHANGES])
def test_each_invalid_change_is_reported_in_one_sentence(changes: dict[str, object], message: str) -> None:
    with pytest.raises(GantoolkitError) as error:
        cyclegan().swap(changes).check()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recipe = ", "is not TOML"),
        ("recipe = 3", "is not a name"),
        ('recipe = "cyclgan"', "no 'cyclgan'. Did you mean 'cyclegan'?"),
        ("identity_weight = 5.0", 'has neither recipe = "..." nor system = "..."'),
        ('recipe = "cyclegan"\n[trainig]\nepochs = 1', "did you mean 'training'?"),
    ],
)
def test_invalid_files_are_reported(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(GantoolkitError) as error:
        Recipe.from_toml(file).check()
    assert message in str(error.value)


def test_a_file_cannot_import_a_dotted_path() -> None:
    with pytest.raises(PluginError, match="generators: no 'os:system'"):
        Recipe.from_toml('recipe = "cyclegan"\ngenerator = "os:system"').check()


@pytest.mark.parametrize("size", [0, 1, 2])
def test_recipe_with_a_small_pool_passes_the_check(size: int) -> None:
    cyclegan().swap({"image_pool.size": size}).check()


def test_check_creates_parameters_on_the_meta_device_only(monkeypatch: pytest.MonkeyPatch) -> None:
    devices: list[torch.device] = []
    register = nn.Module.register_parameter

    def record(self: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        devices.extend([parameter.device] if parameter is not None else [])
        register(self, name, parameter)

    monkeypatch.setattr(nn.Module, "register_parameter", record)
    cyclegan().check()
    assert {device.type for device in devices} == {"meta"}


class Stripes(nn.Module):
    size_multiple = 1

    def __init__(self, in_channels: int, out_channels: int, *, width: int = 1) -> None:
        super().__init__()
        self.mix = nn.Conv2d(in_channels, out_channels, width)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.mix(images).tanh()


def test_a_class_can_be_passed_in_python_but_not_read_from_a_file() -> None:
    recipe = cyclegan(generator=Stripes).swap({"cycle_weight": 5.0}).check()
    assert recipe.system.parameters["generator"].load("generators") is Stripes
    with pytest.raises(RecipeError, match="'python:Stripes' was passed as a Python object"):
        Recipe.from_toml(recipe.to_toml()).check()


def test_a_block_that_depends_on_values_passes_the_check() -> None:
    class Careful(Stripes):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images) if images.abs().max().item() <= 1 else images

    assert cyclegan(generator=Careful).check()


def test_a_generator_with_the_wrong_output_size_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"G_AB returns images of shape .* for a crop; \(2, 3, 256, 256\) is needed"):
        cyclegan(generator={"name": Stripes, "width": 3}).check()


def test_ablations_change_only_their_own_settings() -> None:
    changes = {name: cyclegan.ablation(name).diff(cyclegan()) for name in cyclegan.ablations}
    assert changes["gan_forward"] == {"cycle_weight": ((10.0, 0.0), 10.0)} or changes["gan_forward"] == {
        "cycle_weight": ([10.0, 0.0], 10.0)
    }
    assert changes["gan_alone"] == {"cycle_weight": (0.0, 10.0)}
    assert changes["cycle_alone"] == {"adversarial_weight": (0.0, 1.0)}
    assert changes["identity"] == {"identity_weight": (5.0, 0.0)}
    with pytest.raises(RecipeError, match=r"no ablation 'gan_fwd'\. Did you mean 'gan_forward'\?"):
        cyclegan.ablation("gan_fwd")


@pytest.mark.parametrize("name", list_recipe_files())
def test_shipped_files_pass_the_check(name: str) -> None:
    assert find_recipe(name).check().name


@pytest.mark.parametrize("loss", ["l1", "l2", "ssim"])
def test_every_image_loss_can_be_checked_in_a_recipe(loss: str) -> None:
    cyclegan(cycle_loss=loss, identity_weight=0.5, identity_loss=loss).check()


@pytest.mark.parametrize("text", ["nan", '"nan"', "'nan'"])
def test_nan_of_a_command_marks_pixels_without_data(text: str) -> None:
    """A shell removes the quotes of `"nan"`, and TOML reads the rest as a number."""
    recipe = cyclegan().swap({"data.range_A": [0.0, 1.0], **dict([parse_setting(f"data.nodata_A={text}")])})
    assert recipe.data.nodata_A == "nan"
    assert Recipe.from_toml(recipe.to_toml()) == recipe
