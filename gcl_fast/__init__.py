"""gcl_fast: unsupervised person re-identification by generated views and memory-bank contrast.

Importing the package needs torch and numpy only; everything else is loaded when it is used.
"""

__version__ = "0.1.0"
