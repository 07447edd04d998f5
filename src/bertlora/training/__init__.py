"""Training: from a fresh adapter and labelled examples to the best adapter, and to logits out of fold.

Reading order:

- `events`: what a training yields as it goes on.
- `optimiser`: loss, learning rates, steps, and the average of the weights.
- `health`: what stops a training that cannot succeed; `failed_batch`: the batch at which it happened.
- `checkpoints`: progress and measurements, and how they are kept.
- `stops`, `saving`: signals that end a training, and when it writes checkpoints.
- `accelerator`: training in several processes; TensorBoard, W&B and MLflow.
- `loop`: the training loop.
- `folds`: cross-validation.
"""
