"""facedan: deep unsupervised domain adaptation for face recognition, from the shell."""

__version__ = "0.1.0"
