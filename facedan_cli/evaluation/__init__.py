"""Evaluation of models by protocols (`facedan evaluate`).

`protocols` has a function for each protocol, which defines comparisons (`trials`) and measure (`verification`,
`identification`). `evaluate` does the rest for all of them: features of each model, scores, paired differences,
warnings and the files of the results directory (`result`, `report`). `all_pairs` streams comparisons that are too many
to keep; `external_scores` measures the scores of other systems.
"""
