"""One page that answers "did it get safer, and what did it cost?".

verdict.py              the answer in a sentence, by rules (pure)
chips.py                what to be wary of
runs.py                 a run's folder, and the scores that it names; a sweep's cells
evaluated.py            an evaluation's folder: what changed against the baseline
drawing.py              the look of a figure; inline SVG and what its values tell; files for papers
figures_evaluation.py   ... of an evaluation
figures_training.py     ... of the data and of training
page.py, page.html.j2   all of it in one file without a script
"""
