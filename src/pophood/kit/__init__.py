"""A class without a network: a folder that sets up laptops with pophood, its packages, models and the course.

    own_wheels, platforms ─► packages (pip) ─► make ─► OUT/ ─► laptop/install.py ─► copying ─► check
                                                └─ manifest: kit.json, SHA256SUMS

Everything that a laptop installs is in the folder, pinned by version and hash; nothing is fetched there.
"""

from pophood.kit.check import kit_fault, laptop_fault, laptop_manifest, manifest_of, remember
from pophood.kit.copying import KitDialogue, place_models
from pophood.kit.make import KitPlan, make_kit
from pophood.kit.manifest import KitManifest
from pophood.kit.platforms import PLATFORMS, PYTHONS, parse_python, platform_named

__all__ = [
    "PLATFORMS",
    "PYTHONS",
    "KitDialogue",
    "KitManifest",
    "KitPlan",
    "kit_fault",
    "laptop_fault",
    "laptop_manifest",
    "make_kit",
    "manifest_of",
    "parse_python",
    "place_models",
    "platform_named",
    "remember",
]
