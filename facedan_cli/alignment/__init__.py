"""Alignment of raw images (`facedan align`).

`sources` reads trees, lists, RecordIO and tar archives; `plan` finds the images that remain; `workers` and `ranks`
share them out; `detector` finds faces by MTCNN's cascade (`mtcnn`); `aligner` chooses the face and warps it; `output`
writes the aligned faces and the manifest.
"""
