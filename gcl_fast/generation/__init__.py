"""Generation with a trained model: tensors, pictures, and scores against true views."""

from __future__ import annotations

from .pictures import YAWS, draw_records, generate_pictures
from .quality import FrechetDistance, score_generated, ssim
from .scores import NovelViewScores, mean_training_image, novel_view_sheet, psnr, read_truth, score_novel_views
from .views import identity_mix, novel_views, reconstruct
from .warps import warp_pictures, warped_views

__all__ = [
    "YAWS",
    "FrechetDistance",
    "NovelViewScores",
    "draw_records",
    "generate_pictures",
    "identity_mix",
    "mean_training_image",
    "novel_view_sheet",
    "novel_views",
    "psnr",
    "read_truth",
    "reconstruct",
    "score_generated",
    "score_novel_views",
    "ssim",
    "warp_pictures",
    "warped_views",
]
