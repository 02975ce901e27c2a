"""Pairs whose images differ in size, and what each way of resizing does with them."""

from collections.abc import Iterator
from typing import Literal

from gantoolkit.data.augmentation import compute_size, sizes_match
from gantoolkit.data.images import ImageFile
from gantoolkit.data.survey.reading import Survey
from gantoolkit.errors import count_of

__all__ = ["describe_unequal_pairs", "find_unequal_pairs"]

Resize = Literal["square", "shorter_side", "none"]
Pair = tuple[ImageFile, ImageFile]


def find_unequal_pairs(data: Survey, split: str, resize: Resize) -> list[Pair]:
    """The pairs of a split whose resized images do not have the same size, so that they are not used."""
    settings = data.settings.model_copy(update={"resize": resize})
    unequal = []
    for pair in data.pairs[split]:
        sizes = _sizes(data, split, pair)
        resized = [compute_size(size, settings, settings.load_size) for size in sizes]
        if len(resized) == 2 and not sizes_match(*resized):
            unequal.append(pair)
    return unequal


def describe_unequal_pairs(data: Survey) -> Iterator[str]:
    """A sentence for each split with pairs of unequal sizes, unless the recipe learns without pairs."""
    if data.pairing not in (None, "paired"):
        return
    for split, pairs in data.pairs.items():
        unequal = [pair for pair in pairs if len(set(_sizes(data, split, pair))) == 2]
        if not unequal:
            continue
        (first, second), names = unequal[0], [f"{split}{domain}" for domain in "AB"]
        sizes = " and ".join(f"{width}×{height}" for width, height in _sizes(data, split, unequal[0]))
        effects = [f'"square" stretches both to {data.settings.load_size}×{data.settings.load_size}']
        for resize in ("shorter_side", "none"):
            count = len(find_unequal_pairs(data, split, resize))
            effects.append(f'"{resize}" {f"refuses {count} of them" if count else "gives both the same size"}')
        verb = "differs" if len(unequal) == 1 else "differ"
        yield (
            f"{names[0]} and {names[1]}: {count_of(len(unequal), 'pair')} of {len(pairs)} {verb} in size, such as {first} and "
            f"{second} ({sizes}); data.resize = {', '.join(effects)}"
        )


def _sizes(data: Survey, split: str, pair: Pair) -> list[tuple[int, int]]:
    """The sizes of a pair's images, as far as they are readable."""
    domains = (data.domains[f"{split}{domain}"] for domain in "AB")
    return [domain.sizes[file] for domain, file in zip(domains, pair, strict=True) if file in domain.sizes]
