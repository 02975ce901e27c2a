"""The paper's public data sets: where each is had, and what it shows."""

from dataclasses import dataclass

from gantoolkit.errors import DataError, did_you_mean

__all__ = ["CATALOG", "PublicDataset", "find_public_dataset"]

_CYCLEGAN = "https://efrosgans.eecs.berkeley.edu/cyclegan/datasets/{}.zip"
_PIX2PIX = "https://efrosgans.eecs.berkeley.edu/pix2pix/datasets/{}.tar.gz"


@dataclass(frozen=True)
class PublicDataset:
    """One archive on the web.

    Args:
        name: What it is called here.
        shows: What A and B show, and whether there are pairs.
        url: Its archive; empty where the license lets nobody offer one.
        instead: How to come by it where there is no archive.
    """

    name: str
    shows: str
    url: str
    instead: str = ""


CATALOG = {
    each.name: each
    for each in (
        PublicDataset("apple2orange", "apples ↔ oranges (ImageNet)", _CYCLEGAN.format("apple2orange")),
        PublicDataset("cezanne2photo", "Cézanne's paintings ↔ photographs", _CYCLEGAN.format("cezanne2photo")),
        PublicDataset(
            "cityscapes",
            "label maps ↔ street photographs, pairs",
            "",
            "its license lets nobody pass it on: get gtFine and leftImg8bit at https://www.cityscapes-dataset.com, and join "
            "label maps and photographs of one name with `gantoolkit data pair`",
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
    """The data set of that name.

    Raises:
        DataError: When there is none, or nobody may offer it.
    """
    if name not in CATALOG:
        hint = did_you_mean(name, CATALOG)
        raise DataError(f"data: no public data set '{name}'.{hint} Known: {', '.join(CATALOG)}")
    found = CATALOG[name]
    if not found.url:
        raise DataError(f"{name}: {found.instead}")
    return found
