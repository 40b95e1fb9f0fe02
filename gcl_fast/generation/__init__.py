"""Generation with a trained model: tensors, pictures, and scores against true views."""

from __future__ import annotations

from gcl_fast.generation.decoding import identity_mix, novel_views, reconstruct
from gcl_fast.generation.generated_scores import score_generated
from gcl_fast.generation.measures import FrechetDistance, can_ssim, psnr, ssim
from gcl_fast.generation.novel_view_scores import NovelViewScores, novel_view_sheet, score_novel_views
from gcl_fast.generation.picture_files import draw_records, generate_pictures
from gcl_fast.generation.true_views import mean_training_image, read_truth
from gcl_fast.generation.turntables import turntable
from gcl_fast.generation.warps import warp_pictures, warped_views

__all__ = [
    "FrechetDistance",
    "NovelViewScores",
    "can_ssim",
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
    "turntable",
    "warp_pictures",
    "warped_views",
]
