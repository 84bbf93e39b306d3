"""Controls: what else than the brain could explain an accuracy."""
