"""Training: fine-tune a model on a CPU with torch. No other package imports torch.

    for event in pophood.tune(lm, "notes.txt", method="lora"): print(event)

`data` turns files into batches, `model` is the mathematics (the second of the two forward passes, in the
order and with the names of the engine), `loop` the training steps, `distributed` several processes,
`checkpoint` what survives a power cut, `run` a whole run from a model and files to a folder, and `report`
its results.
"""
