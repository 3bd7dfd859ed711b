"""What the model says.

collect.py   replies to prompts, only those that are missing; settings of generation; the cache
generate.py  a model in memory
cache.py     keys and values of the replies being made, which those that end leave
endpoint.py  an OpenAI-compatible server
completions.py  what its answers say: a completion, a filtered prompt, an error
pool.py      several models in turn, adapters on one base
thoughts.py  what a model thinks before it answers, taken off
progress.py  the bar of a model in memory; estimate.py  how long all will take
records.py   record files: JSONL that may be killed at any byte
"""
