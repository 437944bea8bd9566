"""Benchmarks: how fast a model runs on this machine, beside what the machine could deliver.

`settings.py` says what is measured, `timing.py` does it once, `measure.py` repeats it in rounds,
`ceilings.py` computes what the machine would allow, `record.py` holds the figures, `view.py` and `picture.py`
show them.
"""
