"""One process of a launch in tests/recipe/test_processes.py: what needs more than the command line can say.

process_worker.py run FSDP|DEEPSPEED RECIPE OUT [RECIPE OUT ...]    run recipes, sharded; cut and resume the first
process_worker.py die HOW bdpo-arguments ...                        `bdpo ...`, and rank 1 fails at its third step
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType

from bdpo import cli
from bdpo.errors import BdpoError
from bdpo.processes import weights_are_sharded
from bdpo.recipe.run import run_recipe
from bdpo.recipe.sections import load_recipe
from bdpo.train import BDPOTrainer

REASON = "Rank 1 has had enough: this is the sentence that the user must see."


def cut(run: Path, step: int, to: Path) -> Path:
    """The folder of a run as it was after the checkpoint of `step`."""
    shutil.copytree(run / f"checkpoint-{step}", to / f"checkpoint-{step}")
    for record in ("recipe.yaml", "scores.json", "step.json"):
        shutil.copy(run / record, to)
    return to


def pretend(engine: str) -> None:
    """Have accelerate shard on CPUs: it takes FSDP and DeepSpeed for a matter of accelerators, but all that it calls
    runs on gloo. The processes are joined as CPUs, and then their kind is renamed."""
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState(cpu=True)
    if engine == "DEEPSPEED":
        import deepspeed

        deepspeed.comm.init_distributed("gloo")
    shared: dict[str, Any] = PartialState._shared_state
    kind = DistributedType.MULTI_GPU if engine == "FSDP" else DistributedType.DEEPSPEED  # FSDP is made of MULTI_GPU
    shared |= {"distributed_type": kind, "_cpu": False}


def run(engine: str, *recipes_and_outs: str) -> None:
    places = [Path(place) for place in recipes_and_outs]
    for recipe, out in zip(places[::2], places[1::2], strict=True):
        pretend(engine)
        assert weights_are_sharded() == (os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE") != "2")
        run_recipe(load_recipe(recipe), out)
    recipe, out = places[:2]
    resumed = out.with_name(f"{out.name}-resumed")
    if PartialState().is_main_process:
        cut(out, 10, resumed)
    PartialState().wait_for_everyone()
    pretend(engine)
    run_recipe(load_recipe(recipe), resumed, resume=True)


def die(how: str, *arguments: str) -> None:
    compute = BDPOTrainer.compute_loss

    def failing(self: BDPOTrainer, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == 2 and self.args.process_index == 1:
            if how == "hard":
                os._exit(77)
            raise BdpoError(REASON)
        return compute(self, *args, **kwargs)

    BDPOTrainer.compute_loss = failing  # type: ignore[method-assign]
    sys.argv = ["bdpo", *arguments]
    cli.main()


if __name__ == "__main__":
    {"run": run, "die": die}[sys.argv[1]](*sys.argv[2:])
