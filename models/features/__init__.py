"""The frozen prefix computed once, and shared by all trials and by later searches.

``plan`` says from the configuration alone whether a trial's features are kept, and in which precision; ``prefix`` names
and computes what is kept; ``entries`` are the files; ``source`` is what training and validation batches are made of.
Only what is light to import stands here.
"""

from models.features.plan import FeaturesConfig, Plan, plan

__all__ = ["FeaturesConfig", "Plan", "plan"]
