"""Models measured by a protocol (`facedan evaluate`).

`protocols` has a function a protocol, which says what is compared (`trials`) and how it is measured (`verification`,
`identification`). `evaluate` does the rest for all of them: features of each model, scores, paired differences,
warnings and the files of the results directory (`result`, `report`). `all_pairs` streams comparisons that are too many
to keep; `external_scores` measures the scores of other systems.
"""
