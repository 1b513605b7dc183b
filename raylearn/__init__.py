"""Active learning for object detection on Ray: score a pool, query what is worth labelling, compare how to."""

__version__ = "0.1.0"
