"""Common corruptions of clean images, by which a network's robustness to what nobody crafted is measured.

`known` has their names and severities, and `corrupt` puts one on images.
"""
