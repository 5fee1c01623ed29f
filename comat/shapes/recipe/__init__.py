"""The recipe of the world's models: an autoencoder, a captioner, a segmenter, a feature model, and the base.

`python -m comat.shapes.recipe STAGE` runs one stage; `data/shapes/recipe/dvc.yaml` runs them all.
"""
