"""Source images that look like the target: a CycleGAN with a perceptual loss.

Knows nothing of segmentation: the frozen network comes as a callable that gives score maps.
"""
