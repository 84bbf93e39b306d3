"""Simulated EEG-ImageNet: EEG with known content, and the drawn pictures that it shows."""
