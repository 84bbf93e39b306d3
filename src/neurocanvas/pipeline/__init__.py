"""The run folder, and one file per verb."""
