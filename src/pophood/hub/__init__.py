"""Names -> local files. The only part of pophood that opens a connection, and only `pull` and first use do.

    names -> store, cache (what is here) -> choice (which one) -> fetch: listing, transfer, publish
                                                                  web, connect: the network   smollm2: pip

What is here is found without importing the network's modules, so a start costs no time for them.
"""

from pophood.hub.known_models import CATALOGUE, KnownModel
from pophood.hub.manage import Listed, list_models, pull, remove, use
from pophood.hub.progress import Progress, say_to_log, size_text
from pophood.hub.resolve import Choice, default_choice, locate
from pophood.hub.store import Located

catalogue: dict[str, KnownModel] = CATALOGUE

__all__ = [
    "Choice",
    "KnownModel",
    "Listed",
    "Located",
    "Progress",
    "catalogue",
    "default_choice",
    "list_models",
    "locate",
    "pull",
    "remove",
    "say_to_log",
    "size_text",
    "use",
]
