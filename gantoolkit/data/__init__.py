"""Data: reading and writing images, data sets as folders, and training batches."""

from gantoolkit.data.folders import Dataset, open_dataset, open_test_images
from gantoolkit.data.images import from_tensor, to_tensor
from gantoolkit.data.listing import find_images
from gantoolkit.data.loading import LoadedBatch
from gantoolkit.data.pixels import read_image
from gantoolkit.data.sampling import TrainingBatches
from gantoolkit.data.sources import CacheMode
from gantoolkit.data.writing import write_image

__all__ = [
    "CacheMode",
    "Dataset",
    "LoadedBatch",
    "TrainingBatches",
    "find_images",
    "from_tensor",
    "open_dataset",
    "open_test_images",
    "read_image",
    "to_tensor",
    "write_image",
]
