"""Diffusion: from noise to a picture in small steps.

`schedule` says how much noise there is when, `denoiser` makes any network an estimate of the clean picture, `guidance`
wraps such an estimate, `samplers` walk it down to nothing, `preview` looks on, `objective` trains the network.
"""
