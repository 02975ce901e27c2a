"""Push runs to the Hugging Face Hub with a model card, and pull them again."""

from gantoolkit.hub.card import Card, make_card
from gantoolkit.hub.names import RepositoryName
from gantoolkit.hub.pulling import PullResult, fetch_generator, find_model, pull
from gantoolkit.hub.pushing import PushResult, push

__all__ = [
    "Card",
    "PullResult",
    "PushResult",
    "RepositoryName",
    "fetch_generator",
    "find_model",
    "make_card",
    "pull",
    "push",
]
