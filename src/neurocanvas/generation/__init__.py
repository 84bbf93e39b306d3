"""Generation: a prediction becomes a condition (one way per arm), and Stable Diffusion turns it into pictures."""
