"""The files of published benchmarks, one module a format: what must be asked of the image of each prompt.

docs/benchmarks.md describes them. `prompts` of each module lists what is to be drawn: the text of a prompt, by which an
image finds its questions again, and its category. No module here loads a model.
"""
