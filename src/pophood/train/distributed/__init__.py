"""Several processes that train one model: the process group, sharding, and their one run folder."""
