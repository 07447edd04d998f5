"""Evaluation: the figures of one classifier or several on the same rows, and what they mean.

Reading order:

1. One classifier: `metrics`, `scores` (of classes that count alike, and their intervals), `slices`.
2. Two or more: `gains` (of one over another), `comparison` (all pairs), `choice` (what choosing the best costs),
   `verdict` (a run and its rivals), `side_by_side` (runs).
3. Several trainings: `seeds`, `recipes`.
4. What follows: `cautions` (rows that a run has met), `advice` (what to do next), `audit` (doubtful labels), `report`.
"""
