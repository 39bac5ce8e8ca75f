"""Causal Swin-DPM: noise schedules, windows, samplers."""
