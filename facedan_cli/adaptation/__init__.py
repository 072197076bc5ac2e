"""The penalty of stage 2: pure functions on tensors, usable without the rest of the package.

`kernels` has distances, bandwidths and Gaussian kernels, `mmd` the estimators of MK-MMD, `betas` the optimal kernel
weights, `discrepancies` JMMD, CORAL and the energy distance. `penalty` sums over the layers and applies λ.
`two_sample` tests whether two domains differ beyond chance; `diagnostics` recognises collapsed features.
"""
