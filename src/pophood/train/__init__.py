"""Train: fine-tune a model on a CPU, with torch. The only package that imports torch.

    for event in pophood.tune(lm, "notes.txt", method="lora"): print(event)

`model.py` is the mathematics (the second of the two forward passes, in the order and with the names of
`native/engine/engine.cpp`), `loop.py` the step, `lora.py` adapters, `loss.py` the cross-entropy, `data/`
texts to batches, `checkpoint.py` what survives a power cut.
"""
