"""One page that answers "did it get safer, and what did it cost?".

verdict.py              the answer in a sentence, by rules (pure)
runs.py                 a run's folder, and the scores that it names
evaluated.py            an evaluation's folder: what changed against the baseline
drawing.py              the look of a figure; inline SVG, files for papers
figures_evaluation.py   ... of an evaluation
figures_training.py     ... of the data and of training
page.py, page.html.j2   all of it in one file without a script
"""
