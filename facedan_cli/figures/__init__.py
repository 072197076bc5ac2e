"""Figures and the HTML page: ROC, DET, CMC and score distributions, learning curves, the domains in a plane.

`style` has their common style.
"""
