"""What a reply is worth.

scorers.py       the table: what success on a kind of benchmark means
answers.py       final numbers, options, reference answers (pure)
option_logps.py  log-probabilities of options
lm_eval.py       tasks of lm-evaluation-harness
"""
