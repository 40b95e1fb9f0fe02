"""A synthetic world of walking people seen by several cameras, written as a ReID data set.

>>> from gcl_fast.synthetic import write_world
>>> print(write_world("data/synthetic", layout="market1501", num_train_ids=40, num_test_ids=20))
"""

from __future__ import annotations

from gcl_fast.synthetic.world import write_world
from gcl_fast.synthetic.world_config import WorldConfig
from gcl_fast.synthetic.world_folder import WorldSummary

__all__ = ["WorldConfig", "WorldSummary", "write_world"]
