"""Features of aligned faces by any model, and their similarity (`facedan embed`).

`model` finds a network, PCANet or LBP by its name; `extractor` reads, crops and embeds; `embed` keeps the matrix in the
workspace; `similarity` turns features into scores.
"""
