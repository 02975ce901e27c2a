"""The paper's public data sets: their contents and download addresses."""

from dataclasses import dataclass

from gantoolkit.errors import DataError, did_you_mean

__all__ = ["CATALOG", "PublicDataset", "find_public_dataset"]

_CYCLEGAN = "https://efrosgans.eecs.berkeley.edu/cyclegan/datasets/{}.zip"
_PIX2PIX = "https://efrosgans.eecs.berkeley.edu/pix2pix/datasets/{}.tar.gz"


@dataclass(frozen=True)
class PublicDataset:
    """A public data set.

    Args:
        name: Its name in gantoolkit.
        shows: The contents of A and B, and whether they are pairs.
        url: The address of its archive; empty if its license forbids redistribution.
        instructions: How to obtain it if there is no archive.
    """

    name: str
    shows: str
    url: str
    instructions: str = ""


CATALOG = {
    dataset.name: dataset
    for dataset in (
        PublicDataset("apple2orange", "apples ↔ oranges (ImageNet)", _CYCLEGAN.format("apple2orange")),
        PublicDataset("cezanne2photo", "Cézanne's paintings ↔ photographs", _CYCLEGAN.format("cezanne2photo")),
        PublicDataset(
            "cityscapes",
            "label maps ↔ street photographs, pairs",
            "",
            "its license forbids redistribution: download gtFine and leftImg8bit from https://www.cityscapes-dataset.com, and "
            "join label maps and photographs of the same name with `gantoolkit data pair`",
        ),
        PublicDataset("edges2handbags", "edges | handbags, pairs side by side", _PIX2PIX.format("edges2handbags")),
        PublicDataset(
            "edges2shoes", "edges | shoes (UT Zappos50K), pairs side by side", _PIX2PIX.format("edges2shoes")
        ),
        PublicDataset("facades", "photographs of façades ↔ labels (CMP)", _CYCLEGAN.format("facades")),
        PublicDataset("facades_pairs", "photograph | labels (CMP), pairs side by side", _PIX2PIX.format("facades")),
        PublicDataset("horse2zebra", "horses ↔ zebras (ImageNet)", _CYCLEGAN.format("horse2zebra")),
        PublicDataset("iphone2dslr_flower", "flowers by iPhone ↔ by DSLR", _CYCLEGAN.format("iphone2dslr_flower")),
        PublicDataset("maps", "aerial photographs ↔ maps", _CYCLEGAN.format("maps")),
        PublicDataset("maps_pairs", "aerial photograph | map, pairs side by side", _PIX2PIX.format("maps")),
        PublicDataset("monet2photo", "Monet's paintings ↔ photographs", _CYCLEGAN.format("monet2photo")),
        PublicDataset("summer2winter", "Yosemite, summer ↔ winter", _CYCLEGAN.format("summer2winter_yosemite")),
        PublicDataset("ukiyoe2photo", "ukiyo-e prints ↔ photographs", _CYCLEGAN.format("ukiyoe2photo")),
        PublicDataset("vangogh2photo", "Van Gogh's paintings ↔ photographs", _CYCLEGAN.format("vangogh2photo")),
    )
}


def find_public_dataset(name: str) -> PublicDataset:
    """Look up a public data set by name.

    Raises:
        DataError: When the name is unknown, or the license of the data set forbids redistribution.
    """
    if name not in CATALOG:
        hint = did_you_mean(name, CATALOG)
        raise DataError(f"data: unknown public data set '{name}'.{hint} Known: {', '.join(CATALOG)}")
    dataset = CATALOG[name]
    if not dataset.url:
        raise DataError(f"{name}: {dataset.instructions}")
    return dataset
