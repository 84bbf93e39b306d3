"""Training mappers: losses, the loop, and the scores that always stand together."""
