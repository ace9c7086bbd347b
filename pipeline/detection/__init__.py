"""The detector: what is trained, versioned, saved, loaded, and scores a batch.

recipe        the dataset's recipe as vae_core takes it
features      table ↔ the model's input
calibration   score → p-value, severity, threshold
fitting       a dataset's fits, with its recipe, device, verdicts and checkpoint
detector      features + VAE + calibration + critic in one
reasons       why a record was flagged, in the dataset's units and words
reference     how each column was distributed in training; measures: a batch compared with it
scoring       one batch, from its records to published rows; ahead: reading while others compute
plots         pictures of a trained detector
"""
