"""What else could explain the scores: the audit and the controls."""
