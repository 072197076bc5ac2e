"""Invented faces for `facedan demo` and the tests: traits, the surface of a head, its rendering, and a small GBU."""
