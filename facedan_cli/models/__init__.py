"""The models: face networks, their classification heads and checkpoints, and the classical LBP and PCANet.

`networks` builds a network from its row in `config.models`; every network is a `network.FaceNetwork` with named layers.
`pretrained` reads published weights, one module for each format, and runs no code in them.
"""
