"""From logits to probabilities and decisions. This room needs numpy and scipy only.

Reading order: `probabilities` (softmax), `intervals` (95 % intervals of accuracies), `calibration` (temperature
scaling, and how well it works), `abstention` (thresholds and label sets), `predictions` (what a run answers).
"""
