"""Token ids to batches: the store on disk, the split, packing, and a report on the data."""
