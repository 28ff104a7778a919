"""The plan of a run: every batch, admission and recall as integers, made before training."""
