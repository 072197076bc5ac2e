"""Readers of the files that define protocols: sigsets, FERET's and LFW's lists, lists of pairs, BEE matrices, scores.

`matching` finds the images that a list names; `overlap` compares their names with those of the training images.
"""
