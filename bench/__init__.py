"""Measurements, side by side in one run: times as ratios, errors, traffic. Never tests."""
