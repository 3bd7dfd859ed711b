"""Stage 3: what became of the model, by benchmarks whose replies are judged, with honest statistics.

An import points only to rooms that stand before its own:

ask/           what is asked: the table of benchmarks, their rows, other wordings
replies/       what the model says: local models, endpoints, the cache of replies
judges/        what a reply does; how far a judge agrees with labels given by hand
results/       outcomes on disk, statistics, comparison, tables
grading/       what a reply is worth: the table of scorers; answers, options, lm-evaluation-harness
named.py       what stands for a model on the command line
plan.py        what is asked of every model, as tasks
evaluation.py  models x tasks -> a folder of outcomes
"""
