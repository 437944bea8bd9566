"""Training in several processes: the process group, and data-parallel or sharded models."""
