"""Features of aligned faces by any model, and how two features are compared (`facedan embed`).

`model` finds a network, PCANet or LBP by its name; `extractor` reads, crops and embeds; `embed` keeps the matrix in the
workspace; `similarity` turns features into scores.
"""
