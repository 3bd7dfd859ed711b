"""One page that answers "did it get safer, and what did it cost?".

verdict.py   the answer in a sentence, by rules (pure)
paired.py    the interval of a paired difference of shares (pure)
"""
