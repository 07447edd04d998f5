"""The verbs as functions: each takes and returns what the verb's JSON holds, and prints nothing.

In the order of use: `cache`, `prepare`, `plan`, `audit`, `train`, `evaluate`, `compare`, `report`, `push`,
`demo`, `environment`. They check arguments, files and data first, and import torch only afterwards. Behind them:
`training_run` (one training, from prepared data to a run folder), `training_seeds` (several) and `rows` (the rows on
which a run is evaluated).
"""
