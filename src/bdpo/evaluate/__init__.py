"""Stage 3, evaluation: safer by how much, on what, how sure, and at what price.

    benchmarks -> items -> replies or log-probabilities -> verdicts -> outcomes -> rates and differences

benchmarks   the table of benchmarks and suites; items, sampled
items        a row of a published file -> an item with its messages
sources      where a benchmark's rows come from: the package, a folder, the hub
transforms   static jailbreak transforms of prompts, by name
replies      what a reply and its settings are; the records they are kept in, and their cache
generate     the local engine (pool: several models on one base; endpoint: a server instead)
option_logps log-probabilities of given replies
judges/      what a reply does, or whether it does harm (agreement: a judge against labels)
answers      a reply or log-probabilities -> right or wrong (pure)
evaluation   the stage: models x tasks -> a folder (results: its records; lm_eval: any other benchmark)
statistics   outcomes -> rates, means and paired differences with 95 % intervals and p values (pure)
compare      runs on the same prompts side by side (tables: for the terminal and as Markdown)
callback     the same while training; the command hands it to the run, which knows nothing of it
"""
