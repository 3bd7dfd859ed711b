"""A run from beginning to end, as a recipe says.

sections.py  what a recipe may say
checked.py   values of a recipe against what takes them
data.py      the pairs of a run
parts.py     what the sections say, as objects: configuration, model, tokenizer, adapter
run.py       read the pairs, score them, train, evaluate on held-out pairs, save
folder.py    the folder of a run; checkpoints.py the checkpoints in it, keeper.py what writes them
dryrun.py    what a run would be; memory.py estimates its memory
callback.py  evaluate while training
gap.py       training pairs less held-out pairs (pure)
card.py      the model card of a run; record.py what it writes down for the report
listing.py   the runs below a folder, a line each
"""
