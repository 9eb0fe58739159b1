"""The search spaces that ship with Witness: YAML files that say which settings a sweep may try.

`pipelines.sweep.space` reads them; README.md beside this file describes the format.
"""
