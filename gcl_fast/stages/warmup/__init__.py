"""Stage 1: one file per unsupervised warm-up method."""
