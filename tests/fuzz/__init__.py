"""Calls of every op with hostile arguments: what comes back is a result or an error, never a crash."""
