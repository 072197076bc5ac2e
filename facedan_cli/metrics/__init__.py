"""Rates and intervals from arrays of scores, without files or models.

`roc` has the verification rate at a FAR, `conventions` the rules of other tools, `identification` ranks, CMC and DIR,
`accuracy` the folds of LFW, `bootstrap` and `intervals` the uncertainty, `radix` and `streaming` exact rates of more
comparisons than memory holds.
"""
