"""Model names to local files. Only this package opens connections, for `pull` and a model's first use.

    names -> store, cache (models on this machine) -> resolve -> fetch: net.listing, net.transfer, publish
                                                                 net.web, net.connect: the network
                                                                 pip_fetch, pip_run: packaged models

Finding a model on this machine does not import the network modules, so a start does not pay for them.
"""

from pophood.hub.known_models import CATALOGUE, KnownModel
from pophood.hub.manage import Listed, list_models, pull, remove, use
from pophood.hub.progress import Progress, say_to_log
from pophood.hub.resolve import DefaultChoice, default_choice, locate
from pophood.hub.store import Located
from pophood.system import size_text

catalogue: dict[str, KnownModel] = CATALOGUE

__all__ = [
    "DefaultChoice",
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
