"""The method, pure: tensors and plain numbers in, tensors or a small named dataclass out; no model, file or config.

comprehension.py  log-likelihoods -> mutual information [nats/token]
ches.py           hidden states -> similarity of a pair's responses, a diagnosis
balance.py        mutual information -> weights and scale
logps.py          log-probabilities of pairs -> the statistics that losses compare
losses.py         log-ratios -> loss and rewards; the table of losses
metrics.py        per-pair statistics -> what is logged
"""
