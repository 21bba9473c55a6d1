"""Attention-based multiple-instance learning: heads, one training, and the verb that cross-validates."""
