"""Whole runs: a configuration, a data set, a run folder, and the stages in a row."""
