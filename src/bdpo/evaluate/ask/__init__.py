"""What is asked.

benchmarks.py  the table: one record a benchmark; suites; items, sampled
items.py       rows of published files -> prompts
sources.py     where rows come from: a folder, the hub, the package
transforms.py  the same prompts in other wordings
"""
