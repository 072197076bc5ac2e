"""The options of every command, as frozen dataclasses: a field is an option, with its type, default, help and choices.

Tables stand beside them: networks (`models`), classification heads (`heads`), discrepancies (`discrepancies`),
protocols (`protocols`), alignment templates (`templates`) and the rows of the paper's tables (`table`). Nothing here
imports torch, so that `--help` stays quick.
"""
