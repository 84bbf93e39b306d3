"""Simulated EEG-ImageNet: EEG with known content, and the drawn images that it shows."""
