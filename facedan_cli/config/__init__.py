"""The options of every command, as frozen dataclasses: a field is an option, with its type, default, help and choices.

It also has the tables of networks (`models`), classification heads (`heads`), discrepancies (`discrepancies`),
protocols (`protocols`), alignment templates (`templates`) and rows of the paper's tables (`table`). It imports no
torch, so that `--help` stays quick.
"""
