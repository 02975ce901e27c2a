"""The FCN score: how well a segmentation network reads generated photographs (Isola et al. 2017; Zhu et al. 2017, §5.1.2)."""

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from gantoolkit.blocks.metrics.label_maps import WORDS, Convention, confusion_matrices, summarize
from gantoolkit.blocks.metrics.palette import find_palette
from gantoolkit.blocks.metrics.segmenter import load_segmenter
from gantoolkit.blocks.metrics.summed import Summed

__all__ = ["FCNScore"]


class FCNScore(Summed):
    """Labels → photo: the classes that a segmentation network sees in the photograph, against the labels it was made from.

    Its figures are `pixel_accuracy`, `class_accuracy` and `class_iou`, all from 0 to 1. They say as much of the network as
    of the
    photographs: what real photographs get belongs beside them.

    Args:
        segmenter: A file that `gantoolkit train-segmenter` wrote; or torchvision:NAME.
        weights: For torchvision's networks: nothing for the pretrained ones, whose classes are found by name; file:<path> for
            weights that were trained on the palette's classes; `none` for a random draw, the same each time.
        side: Side in pixels to which photographs are resized for the network; by default, that it was trained at.
        palette: Colors of the classes: cityscapes, camvid, or the path of a TOML file; by default those of the file.
        labels: The domain that shows maps of labels.
        convention: `official` counts classes that do not occur as 0 in the means, as the official script does; `present`
            leaves them out.
    """

    against: Literal["input"] = "input"
    higher_is_better = True
    label_maps = True

    def __init__(
        self,
        *,
        segmenter: str,
        weights: str = "",
        side: Annotated[int, Field(ge=32)] | None = None,
        palette: str = "",
        labels: Literal["A", "B"] = "A",
        convention: Convention = "official",
    ) -> None:
        super().__init__()
        self.segmenter = load_segmenter(
            segmenter, find_palette(palette) if palette else None, weights=weights, side=side
        )
        self.palette = self.segmenter.palette
        self.convention: Convention = convention
        self.direction = "A2B" if labels == "A" else "B2A"
        self.notes = (
            f"read by {self.segmenter.name}; {len(self.palette)} classes of {self.palette.name}, absent classes "
            f"{WORDS[convention]}"
        )

    def statistics(self, images: Tensor, targets: Tensor) -> Tensor:
        found, wanted = self.segmenter.classify(images), self.palette.decode(targets, ignore=True)
        return confusion_matrices(found, wanted, len(self.palette)).flatten(1)

    def figures(self, sums: Tensor) -> dict[str, float]:
        return summarize(sums.view(len(self.palette), -1), self.convention)
