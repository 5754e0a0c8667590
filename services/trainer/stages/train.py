"""Stage 2: fine-tunes the encoder with a linear head, and goes on from its checkpoint after a kill.

The recipe and its scores were measured on short texts: mean pooling, AdamW, warm-up over a tenth of the steps and
linear decay, clipping at 1, frozen word embeddings, batches of near-equal length, bfloat16 where the device
multiplies in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import nn
from torch.nn import functional

from services.contracts.training import Recipe
from services.trainer.domain.spec import Split, Stage
from services.trainer.errors import TooFewPositions
from services.trainer.stages import checkpoint
from services.trainer.stages.base_model import BaseModel, find_base_model
from services.trainer.stages.batches import encode, pad, shuffled
from services.trainer.stages.checkpoint import Position
from services.trainer.stages.device import arithmetic, bfloat16_is_fast, device_for, repeatable
from services.trainer.stages.encoder import Classifier, classifier, freeze
from services.trainer.stages.folder import Finished, RunFolder, hash_of
from services.trainer.stages.prepare import Prepared, load_rows
from services.trainer.stages.spec import RunSpec
from services.trainer.stages.stopping import Stopping

WEIGHTS_FILE: Final = "trained.safetensors"
WEIGHT_DECAY: Final = 0.01
WARM_UP: Final = 0.1
CLIP: Final = 1.0
_REPORTED_EVERY: Final = 10


class Trained(Finished):
    steps: int
    loss: float
    """Mean over all steps."""
    resumed_at_step: int


@dataclass(frozen=True)
class Examples:
    """The training rows as token ids and label numbers."""

    ids: list[list[int]]
    labels: list[int]


def train(folder: RunFolder, spec: RunSpec, prepared: Prepared, stopping: Stopping) -> Trained:
    """Writes `trained.safetensors`: the weights that were trained. Raises Interrupted when told to stop."""
    torch.set_num_threads(spec.threads)
    inputs = train_inputs(spec, prepared)
    base = find_base_model(spec.base_model)
    device = device_for(spec.device)
    repeatable(device)
    model = _model(base, spec, len(prepared.labels)).to(device)
    examples = _examples(folder, base, spec.recipe, prepared.labels)
    plan = _plan(examples, spec.recipe)
    optimizer = _optimizer(model, spec.recipe)
    start = checkpoint.restore_position(folder, inputs, model, optimizer) or Position(0, 0.0)
    if start.step:
        folder.report(Stage.TRAIN, start.step / len(plan), f"resumed at step {start.step}")
    loss_sum = start.loss_sum
    model.train()
    for step in range(start.step, len(plan)):
        loss_sum += _step(model, optimizer, examples, plan[step], _pace(step, len(plan)), base.pad_token_id)
        done = step + 1
        if done % _REPORTED_EVERY == 0 or done == len(plan):
            folder.report(Stage.TRAIN, done / len(plan), f"step {done} of {len(plan)}", {"loss": loss_sum / done})
        due = done % spec.checkpoint_steps == 0 or stopping.requested
        if due and done < len(plan):
            checkpoint.save_position(folder, inputs, Position(done, loss_sum), model, optimizer)
        stopping.check()
    checkpoint.save(folder, WEIGHTS_FILE, dict(checkpoint.trainable(model)), {"inputs": inputs})
    (folder / checkpoint.CHECKPOINT_FILE).unlink(missing_ok=True)
    return Trained(inputs=inputs, steps=len(plan), loss=loss_sum / len(plan), resumed_at_step=start.step)


def train_inputs(spec: RunSpec, prepared: Prepared) -> str:
    """The hash of all that training depends on; threads too, since sums in another order differ in the last bit."""
    device = device_for(spec.device)
    numbers = (spec.recipe, spec.frozen_layers, spec.threads, device.type, bfloat16_is_fast(device))
    return hash_of(Stage.TRAIN, prepared.data_hash, spec.base_model, *numbers)


def load_trained(folder: RunFolder, spec: RunSpec, prepared: Prepared) -> Classifier:
    """The classifier that `train` left, on the CPU and ready to evaluate in float32, wherever it was trained."""
    torch.set_num_threads(spec.threads)
    model = _model(find_base_model(spec.base_model), spec, len(prepared.labels))
    matches = checkpoint.load(folder, WEIGHTS_FILE, train_inputs(spec, prepared))
    if matches is None:
        raise FileNotFoundError(WEIGHTS_FILE)
    model.load_state_dict(matches[0], strict=False)
    model.eval()
    return model


def _model(base: BaseModel, spec: RunSpec, labels: int) -> Classifier:
    """Raises a kind of UnsupportedBaseModel. From here on all that training draws depends on the recipe's seed."""
    model = classifier(base, labels, spec.recipe.seed)
    if model.positions < spec.recipe.max_length:
        raise TooFewPositions(positions=model.positions, max_length=spec.recipe.max_length)
    freeze(model, spec.frozen_layers)
    return model


def _examples(folder: RunFolder, base: BaseModel, recipe: Recipe, labels: Sequence[str]) -> Examples:
    rows = load_rows(folder, Split.TRAIN)
    number = {label: index for index, label in enumerate(labels)}
    ids = encode(base.tokenizer(), [row.text for row in rows], recipe.max_length)
    return Examples(ids, [number[row.label] for row in rows])


def _plan(examples: Examples, recipe: Recipe) -> list[list[int]]:
    """The rows of each step, all epochs long; known beforehand, so that a resumed run takes the same ones."""
    return [
        batch
        for epoch in range(recipe.epochs)
        for batch in shuffled(examples.ids, recipe.batch_size, recipe.seed * 1000 + epoch)
    ]


def _optimizer(model: Classifier, recipe: Recipe) -> torch.optim.AdamW:
    encoder = [value for value in model.encoder.parameters() if value.requires_grad]
    groups = [
        {"params": encoder, "lr": recipe.learning_rate, "peak": recipe.learning_rate},
        {"params": list(model.head.parameters()), "lr": recipe.head_learning_rate, "peak": recipe.head_learning_rate},
    ]
    return torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY, fused=True)


def _pace(step: int, steps: int) -> float:
    """The share of the peak learning rate: up over the first tenth, then down to zero."""
    warm_up = max(1, round(WARM_UP * steps))
    return (step + 1) / warm_up if step < warm_up else (steps - step) / max(1, steps - warm_up)


def _step(
    model: Classifier, optimizer: torch.optim.Optimizer, examples: Examples, rows: list[int], pace: float, pad_id: int
) -> float:
    batch = pad(examples.ids, rows, pad_id)
    device = model.head.weight.device
    targets_B = torch.tensor([examples.labels[row] for row in rows], device=device)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * pace
    optimizer.zero_grad(set_to_none=True)
    with arithmetic(device):
        logits_BC, _ = model(torch.from_numpy(batch.ids_BT).to(device), torch.from_numpy(batch.mask_BT).to(device))
    loss = functional.cross_entropy(logits_BC, targets_B)
    loss.backward()
    nn.utils.clip_grad_norm_([value for value in model.parameters() if value.requires_grad], CLIP)
    optimizer.step()
    return float(loss.detach())
