"""Targets: what a mapper predicts. Picture to caption (BLIP), caption to (77, 768) (CLIP text encoder)."""
