"""Many runs that differ in method, setting or seed, and what they show together.

plan.py     what a sweep is: recipe x methods x grid x seeds -> cells, each an ordinary recipe with a folder
cells.py    one cell: score once for all, train or go on, evaluate
queue.py    the cells one after the other, or one process a device
results.py  sweep.json as cells finish, compare.json and the tables at the end
choose.py   a setting picked on validation prompts, and evaluated once on the rest
run.py      all of it, ending with the page (`bdpo.report`), from beginning to end or from where it stopped
"""
