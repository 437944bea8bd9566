"""Lines that several machines answer, by Ray Data (extra [ray]); `driver.py` alone imports Ray."""

from pophood.batch.cluster.lines import RayLines

__all__ = ["RayLines"]
