"""Self-supervised training of vision transformers on cells: DINOv2 as DinoBloom uses it, without local crops."""
