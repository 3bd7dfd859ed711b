"""Log-probabilities of pairs, for the tests of losses."""

import torch

from bdpo.method.losses import PairLogps

BETA = 0.1


def make_pairs(seed: int = 0, count: int = 6, dtype: torch.dtype = torch.float64) -> PairLogps:
    """Pairs of realistic size; policy log-probabilities within a few nats of the reference."""
    generator = torch.Generator().manual_seed(seed)

    def normal(mean: float, std: float) -> torch.Tensor:
        return (mean + std * torch.randn(count, generator=generator, dtype=torch.float64)).to(dtype)

    ref_chosen, ref_rejected = -normal(60, 20).abs() - 5, -normal(60, 20).abs() - 5
    return PairLogps(
        chosen=(ref_chosen + normal(0, 3)).clamp(max=-1).requires_grad_(),
        rejected=(ref_rejected + normal(0, 3)).clamp(max=-1).requires_grad_(),
        ref_chosen=ref_chosen,
        ref_rejected=ref_rejected,
        chosen_lengths=torch.randint(1, 90, (count,), generator=generator),
        rejected_lengths=torch.randint(1, 90, (count,), generator=generator),
        chosen_unsafe=torch.zeros(count, dtype=torch.bool),
        rejected_unsafe=torch.arange(count) % 2 == 0,
    )
