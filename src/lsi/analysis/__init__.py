"""What scores mean: how well they find known label errors."""

from lsi.analysis.detection import detection_quality

__all__ = ["detection_quality"]
