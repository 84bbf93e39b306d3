"""Sources of trials and pictures."""
