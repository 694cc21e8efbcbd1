"""Segmentation networks, their adversarial and self-supervised training, and their measure."""
