"""Training by contest: a generator paints, a discriminator tells its paintings from pictures, and both get better.

Goodfellow et al. 2014 (arXiv:1406.2661). One idea a file: what each side wants (`losses`), what keeps the judge smooth
(`penalties`, `spectral`), what keeps it from learning few pictures by heart (`augment`), the two turns of a step
(`objective`, `translation`), what the norms need afterwards (`standing`), and what goes wrong (`watch`).
"""
