"""What a sweep may try: named search spaces, as data, which `pipelines.space` reads."""
