"""Evaluation: scores of runs, ablation tables and the perceptual study."""
