"""What a step of training takes and how much of it is waiting for data: ``python Testing/benchmarks/bench_training.py``.

Every recipe for public data (``training/configs/public``) at its full width, on noise of the size of its pictures, as `lesiontrain
fit` runs it on a CPU: batches from its loader, forward, loss, backward, step, in float32. What a step and the data of an item take is
time of the processor, the shortest of some steps, so that it counts for nothing what else the machine does. Waiting is the share of
the whole time in which the step stands still for its batch; another program on the machine makes it longer.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import torch
import yaml
from LesionLib.inference.process import keep_memory
from LesionLib.model.folder import golden_case
from LesionLib.sampling.batches import crop_lesion
from lesiontraining import tasks
from lesiontraining.data.augment import Augmentation
from lesiontraining.data.crops import input_spec
from lesiontraining.data.lesions import LesionDataset
from lesiontraining.tasks.base import LesionTask
from torch import Tensor
from torch.utils.data import DataLoader

RECIPES = Path(__file__).resolve().parents[2] / "training" / "configs" / "public"
CLASSES, LESIONS, _BUDGET_S = ("benign", "malignant"), 160, 6.0
_LONG_S = 3.0  # a step that is long is measured well by one


@dataclass(frozen=True)
class Step:
    """Of a recipe, ms of the processor an item: the ``step`` alone and the ``loading``; ``waiting``: the share of time, 0 to 1."""

    recipe: str
    step: float
    loading: float
    waiting: float


def main() -> None:
    """Print one line a recipe."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    be_quiet()
    for each in measured():
        print(
            f"{each.recipe}: {each.step:.2f} ms of the processor an item, its data {each.loading:.2f} ms; "
            f"{each.waiting:.0%} of the time is waiting for data",
            flush=True,
        )


def be_quiet() -> None:
    """Lightning says that nothing is logged without its trainer."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*self.log.*")


def measured() -> Iterator[Step]:
    """Each recipe that learns by steps."""
    keep_memory()  # as `lesiontrain` does
    for path in sorted(RECIPES.glob("*.yaml")):
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
        if recipe["trainer"].get("max_epochs") == 0:  # fitted by scikit-learn
            continue
        yield step_of(path.stem, recipe)


def step_of(name: str, recipe: dict) -> Step:
    """Loading and steps in turns."""
    torch.manual_seed(0)
    task = task_of(recipe["model"])
    images = pictures(recipe["data"]["input"])
    loader = task.train_loader(images, workers=0, seed=0)
    weights = [weight for weight in task.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(weights, lr=1e-4, momentum=0.9)

    def step(batch: dict[str, Tensor]) -> None:
        optimizer.zero_grad(set_to_none=True)
        task.training_step(batch, 0).backward()
        optimizer.step()

    items = [loader.dataset[key] for key, _ in zip(loader.sampler, range(loader.batch_size), strict=False)]
    batch = loader.collate_fn(items)
    first = taken(lambda: step(batch))
    alone = min(taken(lambda: step(batch)) for _ in range(3 if first < _LONG_S else 1))
    keys = list(islice(loader.sampler, 20))
    loading = min(taken(lambda: [loader.dataset[key] for key in keys]) for _ in range(3))
    waited, started = 0.0, perf_counter()
    batches = endless(loader)
    next(batches)
    while perf_counter() - started < _BUDGET_S:
        before = perf_counter()
        batch = next(batches)
        waited += perf_counter() - before
        step(batch)
    return Step(name, alone / len(items) * 1e3, loading / len(keys) * 1e3, waited / (perf_counter() - started))


def taken(call: Callable[[], object]) -> float:
    """Seconds of the processor."""
    before = process_time()
    call()
    return process_time() - before


def endless(loader: DataLoader) -> Iterator[dict[str, Tensor]]:
    """Epoch after epoch, as Lightning asks for them."""
    for epoch in count():
        loader.sampler.set_epoch(epoch)
        yield from loader


def task_of(model: dict) -> LesionTask:
    """The recipe's task; weights that it would begin with do not change how long it takes."""
    options = {key: value for key, value in model["init_args"].items() if key != "weights"}
    if "augmentation" in options:
        options["augmentation"] = Augmentation(**options["augmentation"])
    task = getattr(tasks, model["class_path"].removeprefix("lesiontraining.tasks."))
    return task(class_names=list(CLASSES), **options).train()


def pictures(section: dict) -> LesionDataset:
    """Lesions of the input's kind, noise of the size that it has."""
    spec = input_spec(section)
    shape = crop_lesion(*golden_case(), spec).patches.shape
    rng = np.random.default_rng(0)
    images = tuple(rng.uniform(-1, 1, shape).astype(np.float32) for _ in range(LESIONS))
    names, nothing = np.array([f"L{i}" for i in range(LESIONS)]), np.full(LESIONS, np.nan)
    return LesionDataset(
        images=images, labels=np.arange(LESIONS) % 2, class_names=CLASSES, lesion_ids=names, patients=names, studies=names,
        folds=np.zeros(LESIONS, int), size_mm=np.full((LESIONS, 3), 10.0), volume_mm3=nothing, mean_hu=nothing,
        spacing_mm=np.full((LESIONS, 3), 1.0), targets=np.full((LESIONS, 4), np.nan), value_range=(-1.0, 1.0),
    )  # fmt: skip


if __name__ == "__main__":
    main()
