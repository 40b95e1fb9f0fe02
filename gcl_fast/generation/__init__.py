"""Generation with a trained model: tensors, pictures, and scores against true views."""

from __future__ import annotations

from gcl_fast.generation.decoding import identity_mix, novel_views, reconstruct
from gcl_fast.generation.pictures import YAWS, draw_records, generate_pictures
from gcl_fast.generation.quality import FrechetDistance, score_generated, ssim
from gcl_fast.generation.scores import NovelViewScores, mean_training_image, novel_view_sheet, psnr, read_truth, score_novel_views
from gcl_fast.generation.warps import warp_pictures, warped_views

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
