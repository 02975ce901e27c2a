"""Sharing: a run as a repository on the Hugging Face Hub, with a card that says what it is, and back again."""

from gantoolkit.hub.card import Card, make_card
from gantoolkit.hub.names import RepositoryName
from gantoolkit.hub.pulling import Pulled, fetch_generator, find_model, pull
from gantoolkit.hub.pushing import Pushed, push

__all__ = [
    "Card",
    "Pulled",
    "Pushed",
    "RepositoryName",
    "fetch_generator",
    "find_model",
    "make_card",
    "pull",
    "push",
]
