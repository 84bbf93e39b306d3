"""Training: one loop for every network, and what it trains them by."""
