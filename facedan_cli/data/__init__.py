"""Data sets: their images, identities and digests, and batches on the device.

A data set is a tree or a list (`dataset`), described by its `aligned.jsonl` (`manifest`, `origins`). Its identity
is a digest of the contents of its files (`contents`). `images` decodes every format, `cache` keeps decoded faces,
`batches` draws seeded streams of crops. `templates` has the similarity transform and the warp of the alignment.
"""
