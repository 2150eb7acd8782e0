"""int8 within an accuracy budget: the search, what it asks of a backend, and what backends share.

A backend that can make int8 files has ``quantizer(hub, tensors, work, chip) -> Quantizer``; it calibrates once, and
then writes a file for any `Recipe`, in seconds. `plumbline.quantization.search` asks it for one after another.
"""
