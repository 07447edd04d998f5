"""From logits to probabilities and decisions. This room needs numpy and scipy only.

Reading order: `probabilities` (softmax, and how well probabilities match outcomes), `intervals` (95 % intervals of
accuracies), `calibration` (temperature scaling), `abstention` (thresholds), `label_sets` (conformal sets),
`predictions` (what a run answers). For numbers: `agreement` (correlations and errors), `spread` (conformal
intervals). For several labels per text: `label_agreement` (F1, subset accuracy, average precision), `thresholds`.
`learned` chooses by the task.
"""
