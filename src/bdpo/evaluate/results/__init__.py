"""What an evaluation found.

outcomes.py    the folder of an evaluation
statistics.py  rates, means, paired differences, with intervals and p values (pure)
paired.py      the score interval of a difference of paired rates (pure)
compare.py     models side by side on the same prompts
worst.py       the lowest category of each method (pure)
weights.py     of the suites in the overall average (pure)
curve.py       methods as curves: harmful refused at equal harmless answered (pure); curve_table.py: of folders
flips.py       prompts gained and lost, with both replies
tables.py      for the terminal and as Markdown
"""
