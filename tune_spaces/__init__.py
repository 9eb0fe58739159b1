"""The search spaces that ship with Witness: YAML files that say which alignment settings a sweep may try.

`pipelines.sweep.space` reads them; README.md beside this file describes the format.
"""
