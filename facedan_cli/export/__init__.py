"""A network as a file for other programs (`facedan export`), read back and compared with the network.

`export` checks the options, writes and compares. `graphs` writes ONNX and TorchScript, which hold the network and its
preprocessing; `raw` leaves that outside. `weights` writes the tensors alone, by facedan's names or the publisher's.
`hub` writes a folder for the Hugging Face Hub; its `model_card` has the rates that `measured` finds in the workspace.
`metadata` says what a file takes and gives.
"""
