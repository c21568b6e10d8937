"""Painting by ascent: something that can be painted on is changed, step by step, until a judge likes what it shows.

The idea of feature visualisation (Erhan et al. 2009; Mordvintsev et al. 2015) with CLIP as the judge (Deep Daze and Big
Sleep, Murdock 2021; VQGAN-CLIP, Crowson 2021). What is painted on is a `canvas.Canvas`, one file each; `loop.ascend` is
the only loop.
"""
