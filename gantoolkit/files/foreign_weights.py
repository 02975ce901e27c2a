"""Weights of other projects' networks, recognized from the names and shapes of their tensors, to say whose they look like."""

import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence

__all__ = ["describe_foreign_weights"]

Shapes = Mapping[str, Sequence[int]]

_NAMES = (
    (
        r"mlp_\d+\.\d+\.weight",
        "the network F of CUT, which projects features; use its generator (latest_net_G.pth)",
    ),
    (
        r"(generators|discriminators)\.\w+\..*",
        "a whole model of MMGeneration or MMagic; save one of its generators, without 'generators.NAME.' in the names",
    ),
    (
        r"(gen[AB]2[AB]\.)?(DownBlock|UpBlock1_\d|gap_fc)\..*",
        "U-GAT-IT's generator, whose attention and adaptive normalization no network here has",
    ),
    (
        r"([abc]\.)?(enc_content|enc_style)\..*",
        "MUNIT's generator: encoders of content and style and a decoder, which no network here has",
    ),
    (r"([abc]\.)?enc\.model\..*", "UNIT's generator: a variational autoencoder, which no network here is"),
    (
        r"(sd_encoder|sd_decoder|sd_vae_enc|sd_vae_dec|unet_lora\w*)\..*",
        "img2img-turbo (CycleGAN-Turbo): changes to Stable Diffusion, and not a whole network",
    ),
    (r".*(\.lora_(A|B|up|down)\.|\blora_unet_).*", "LoRA: changes to a diffusion model, and not a whole network"),
    (
        r"(.*\.)?(down_blocks\.\d+\.resnets|mid_block\.|model\.diffusion_model\.|first_stage_model\.).*",
        "a diffusion model, as in diffusers, which is not a generator of one step",
    ),
    (
        r"(.*\.)?(mapping\.fc\d+|synthesis\.b\d+|conv\d?\.modulation|to_rgb1?\.)\b.*",
        "StyleGAN, which generates images from noise and translates none",
    ),
    (
        r"down1\.model\.0\.weight",
        "PyTorch-GAN's U-Net, whose last layer interpolates, where the official one has a transposed convolution",
    ),
)
"""Regular expressions for the name of a tensor, and whose network has it."""

_NETWORK_CONVOLUTIONS = 4
"""The smallest number of convolutions of a network in a file of several."""


def describe_foreign_weights(shapes: Shapes) -> str:
    """Whose network tensors look like, and why they do not fit the official networks; empty if unknown.

    Args:
        shapes: The shapes of the tensors by name, in the order of the file.
    """
    convolutions = [shape for name, shape in shapes.items() if name.endswith("weight") and len(shape) == 4]
    if any(re.fullmatch(r"(.*\.)?filt", name) for name in shapes):
        return _describe_blur(convolutions)
    for pattern, text in _NAMES:
        if any(re.fullmatch(pattern, name) for name in shapes):
            return text
    if names := _find_networks(shapes):
        first = names[0]
        return (
            f"several networks ({', '.join(names[:8])}); save one of them: torch.save({{name.removeprefix('{first}.'): tensor "
            f"for name, tensor in state.items() if name.startswith('{first}.')}}, ...)"
        )
    return _describe_resnet(convolutions)


def _describe_blur(convolutions: Sequence[Sequence[int]]) -> str:
    if convolutions and convolutions[0][2] == 4:
        return "a discriminator of CUT; use its generator (latest_net_G.pth)"
    return (
        "CUT's generator, which blurs where it changes the resolution (the buffers 'filt'), where the official one does not. "
        "One that CUT trains with --no_antialias --no_antialias_up can be imported"
    )


def _describe_resnet(convolutions: Sequence[Sequence[int]]) -> str:
    """A ResNet that differs from the official one in how it changes the resolution."""
    if len(convolutions) < 6 or {tuple(convolutions[index][2:]) for index in (0, -1)} != {(7, 7)}:
        return ""
    width = convolutions[0][0]
    widths = [(width << level + 1, width << level) for level in range(len(convolutions) - 1)]
    pairs = zip(convolutions[1:], widths, strict=True)
    downsamplings = sum(1 for _ in itertools.takewhile(lambda pair: tuple(pair[0][:2]) == pair[1], pairs))
    if tuple(convolutions[-2][:2]) == (width, 2 * width):
        return (
            "a ResNet that enlarges by interpolation and convolutions, as in PyTorch-GAN, where the official one has "
            "transposed convolutions"
        )
    if downsamplings not in (0, 2):
        return f"a ResNet that downsamples {downsamplings} times, as in pix2pixHD, where the official one does so twice"
    return ""


def _find_networks(shapes: Shapes) -> list[str]:
    """The first parts of names, if each of several has the convolutions of a whole network."""
    counts = Counter(name.partition(".")[0] for name, shape in shapes.items() if len(shape) == 4)
    networks = [
        name
        for name, count in counts.items()
        if count >= _NETWORK_CONVOLUTIONS and re.fullmatch(r"[A-Za-z]\w{0,40}", name)
    ]
    return networks if len(networks) > 1 else []
