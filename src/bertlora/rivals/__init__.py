"""What LoRA must beat on the same training rows: a linear probe on the frozen encoder, and TF-IDF without an encoder.

Reading order:

- `regression`: softmax regression for classes, one for each of several labels, as strong as cross-validation says; and
  which linear model a rival is.
- `ridge`: ridge regression for numbers, and for many classes.
- `probe`: the linear probe, its learning curve, and the head's start.
- `tfidf`: TF-IDF.
- `fitted`: both rivals of a run.
"""
