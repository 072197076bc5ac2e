"""From raw images to aligned faces (`facedan align`).

`sources` reads trees, lists, RecordIO and tar archives; `plan` decides what is left to do; `workers` and `ranks` share
it out; `detector` finds faces by MTCNN's cascade (`mtcnn`); `aligner` chooses the face and warps it; `output` writes
the aligned faces and the manifest.
"""
