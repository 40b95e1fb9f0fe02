"""Bodies from photos alone: a pose model finds landmarks, a body is fitted to them.

`Estimator` is the interface for other estimators: `estimate_meshes` takes any.
"""

from gcl_fast.estimation.blaze_pose import BlazePose
from gcl_fast.estimation.landmarks import EstimatedBodies, Estimator, Landmarks
from gcl_fast.estimation.photo_meshes import EstimateReport, estimate_meshes
from gcl_fast.estimation.pose_weights import pose_weights

__all__ = ["BlazePose", "EstimateReport", "EstimatedBodies", "Estimator", "Landmarks", "estimate_meshes", "pose_weights"]
