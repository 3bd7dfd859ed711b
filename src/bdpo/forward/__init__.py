"""(model, trees) -> log-probabilities, fast: everything between token ids and the sums that the method is made of.

layout.py     a prefix and its branches -> one batch of tensors (index arithmetic, pure)
attention.py  attention over a packed row, block by block
head.py       hidden states -> log-probabilities of tokens, in slices of the vocabulary
lora.py       a linear layer with its LoRA adapter as one function
logprobs.py   THE function from (model, batch) to log-probabilities, and which layout a model takes
passes.py     a frozen model over many trees, in batches of like length
sharded.py    ... and one whose weights are shared out over processes
allocator.py  let the C allocator keep freed memory (Linux, CPU)

Tricks on what belongs to others, each on an explicit call and from one place:

- `attention.let_sdpa_take_blocks` replaces what transformers calls `sdpa`; called where a packed row's mask is made
  (`logprobs._mask_for`).
- `logprobs._through_sliced_head` replaces the LM head's forward for the length of a call.
- `lora.fuse_lora` swaps the class of PEFT's LoRA layers; called where a policy is made (`bdpo.train.prepare.policy`).
- `allocator.keep_freed_memory` tunes the C library's allocator; called where a CPU begins to score, train or generate.
"""
