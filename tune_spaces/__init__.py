"""What a sweep may try: named search spaces, as data, which `pipelines.sweep.space` reads."""
