"""Timings, side by side in one run, as ratios. Never tests."""
