"""From logits to probabilities and decisions. This room needs numpy and scipy only.

Reading order: `probabilities` (softmax), `intervals` (95 % intervals of accuracies), `reliability` (how well
probabilities match outcomes), `calibration` (temperature scaling), `abstention` (thresholds), `label_sets` (conformal
sets), `predictions` (what a run answers).
"""
