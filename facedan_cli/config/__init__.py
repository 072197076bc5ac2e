"""The options of every command, as frozen dataclasses: a field is an option, with its type, default, help and choices.

Three tables stand beside them, a row each: networks (`models`), discrepancies (`discrepancies`) and the rows of the
paper's tables (`table`). Nothing here imports torch, so that `--help` stays quick.
"""
