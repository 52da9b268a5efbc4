"""Evaluation: metrics, baselines, confidence intervals, report, plots."""
