"""The tasks: what the target of a row is, and which options fit it.

A target is one class, any number of labels, or a number.

A room whose work depends on the task has one implementation for each, and chooses by the name here, or by the type of
what was learned. `docs/tasks.md` lists them.
"""

from dataclasses import dataclass, field
from typing import Any

CLASSIFICATION, MULTILABEL, REGRESSION = "classification", "multilabel", "regression"
AUTO = "auto"


@dataclass(frozen=True)
class Task:
    """What is fixed for a task.

    Attributes:
        name: as in recipes.
        problem_type: the name that transformers has for it in a model's config.
        target_type: numpy's type of the targets.
        options: recipe key → the values that fit this task; other keys take any value.
    """

    name: str
    problem_type: str
    target_type: str
    options: dict[str, tuple[Any, ...]] = field(default_factory=dict)


TASKS = {
    CLASSIFICATION: Task(
        CLASSIFICATION,
        "single_label_classification",
        "int64",
        {"loss": (AUTO, "cross-entropy"), "best_metric": (AUTO, "accuracy", "macro_f1", "matthews", "f1", "loss")},
    ),
    MULTILABEL: Task(
        MULTILABEL,
        "multi_label_classification",
        "bool",
        {
            "loss": (AUTO, "binary-cross-entropy"),
            "best_metric": (AUTO, "average_precision", "macro_f1", "micro_f1", "subset_accuracy", "loss"),
            "class_weights": (AUTO, "none"),
            "label_smoothing": (0.0,),
        },
    ),
    REGRESSION: Task(
        REGRESSION,
        "regression",
        "float64",
        {
            "loss": (AUTO, "mse", "huber"),
            "best_metric": (AUTO, "rmse", "mae", "pearson", "spearman", "loss"),
            "class_weights": (AUTO, "none"),
            "label_smoothing": (0.0,),
        },
    ),
}


def task_named(name: str) -> Task:
    """Returns a task by its name; `auto`, where nothing decides, is classification."""
    return TASKS[CLASSIFICATION if name == AUTO else name]


def task_of_problem(problem_type: str) -> Task:
    """Returns a task by transformers' name of the kind of problem."""
    return next(task for task in TASKS.values() if task.problem_type == problem_type)
