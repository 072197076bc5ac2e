"""A network as a file for other programs (`facedan export`), read back and compared with the network.

`export` checks the options, writes and compares. `graphs` writes ONNX and TorchScript, which hold the network and its
preprocessing, which `raw` leaves outside; `weights` the tensors alone. `metadata` says what a file takes and gives.
"""
