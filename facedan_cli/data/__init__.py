"""Data sets: which images there are, whose they are, what they hold, and batches of them on the device.

A data set is a tree or a list (`dataset`), with what `aligned.jsonl` says of it (`manifest`, `origins`). Its identity
is a digest of the contents of its files (`contents`). `images` decodes every format, `cache` keeps decoded faces,
`batches` draws seeded streams of crops. `templates` has the similarity transform and the warp of the alignment.
"""
