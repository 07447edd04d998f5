#!/usr/bin/env python3
"""Writes docs/schemas/VERB.json: JSON Schemas of what `bertlora VERB --json` prints.

python docs/make_schemas.py

The tests of the command line check every JSON that they read against them. A verb may print further keys: a key that
a schema lists keeps its name and its meaning.
"""

import json
from pathlib import Path
from typing import Any

Schema = dict[str, Any]
Keys = dict[str, Schema]
FOLDER = Path(__file__).with_name("schemas")
DIALECT = "https://json-schema.org/draft/2020-12/schema"

TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
NUMBER: Schema = {"type": "number"}
COUNT: Schema = {"type": "integer", "minimum": 0}
SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 1}
CORRELATION: Schema = {"type": "number", "minimum": -1, "maximum": 1}
POSITIVE: Schema = {"type": "number", "minimum": 0}


def said(schema: Schema, description: str) -> Schema:
    """Returns a schema with a description."""
    return schema | {"description": description}


def maybe(schema: Schema) -> Schema:
    """Returns the schema of a value that may be null."""
    return {"anyOf": [schema, {"type": "null"}]}


def listed(items: Schema) -> Schema:
    """Returns the schema of a list."""
    return {"type": "array", "items": items}


def interval(end: Schema) -> Schema:
    """Returns the schema of [low, high]."""
    return {"type": "array", "items": end, "minItems": 2, "maxItems": 2}


def by_name(values: Schema) -> Schema:
    """Returns the schema of an object whose keys are names, such as labels."""
    return {"type": "object", "additionalProperties": values}


def table(required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    """Returns the schema of an object."""
    return {"type": "object", "required": list(required), "properties": required | (optional or {})}


CI = {"description": "95 % confidence interval"}
CHECK = table(
    {
        "name": TEXT,
        "severity": {"enum": ["note", "warning", "error"]},
        "count": COUNT,
        "rows": said(listed(COUNT), "0-based, in the source file; the first 100"),
        "advice": TEXT,
    }
)
CLASS = table({"precision": SHARE, "recall": SHARE, "f1": SHARE, "support": COUNT})
CONFUSED = table({"true": TEXT, "predicted": TEXT, "rows": COUNT, "share": said(SHARE, "of the true class")})
FIGURES = table(
    {
        "accuracy": SHARE,
        "accuracy_ci95": interval(SHARE) | CI,
        "balanced_accuracy": SHARE,
        "balanced_accuracy_ci95": interval(SHARE) | CI,
        "macro_f1": SHARE,
        "macro_f1_ci95": interval(SHARE) | CI,
        "weighted_f1": SHARE,
        "matthews": CORRELATION,
        "matthews_ci95": interval(CORRELATION) | CI,
        "f1": said(maybe(SHARE), "of the second of two classes; null with more"),
        "f1_ci95": maybe(interval(SHARE) | CI),
        "roc_auc": said(maybe(SHARE), "null if a class has no rows"),
        "average_precision": said(maybe(SHARE), "null if a class has no rows"),
        "loss": said(POSITIVE, "log loss in nats"),
        "brier": {"type": "number", "minimum": 0, "maximum": 2},
        "ece": SHARE,
        "per_class": said(by_name(CLASS), "by label"),
        "confusion": said(
            maybe(listed(listed(COUNT))), "row: true class, column: predicted class; null with over 100 classes"
        ),
        "top_confusions": said(listed(CONFUSED), "the 20 largest, the largest first"),
        "other_confusions": said(COUNT, "wrong rows in all other confusions"),
    },
    {
        "top_3_accuracy": said(SHARE, "with 10 classes or more: the right class is among the first 3"),
        "top_3_accuracy_ci95": interval(SHARE) | CI,
        "top_5_accuracy": SHARE,
        "top_5_accuracy_ci95": interval(SHARE) | CI,
        "training_seconds": POSITIVE,
    },
)
TESTED = table(
    {"metric": TEXT, "pairs": COUNT, "gain_points": NUMBER, "gain_points_ci95": interval(NUMBER), "p": SHARE}
)
GAIN = table({"gain": NUMBER, "ci95": interval(NUMBER), "p": SHARE})
PAIR = {
    "rows": COUNT,
    "gain_points": said(NUMBER, "the second minus the first"),
    "gain_points_ci95": interval(NUMBER) | CI,
    "tested": said(TESTED, "corrected for the number of pairs (Holm)"),
    "significant": FLAG,
    "verdict": TEXT,
}
COMPARISON = PAIR | {
    "only_first": COUNT,
    "only_second": COUNT,
    "mcnemar_p": SHARE,
    "rows_for_a_point": maybe(COUNT),
    "rows_to_settle": maybe(COUNT),
}
SCORES = {"macro_f1": GAIN, "balanced_accuracy": GAIN, "matthews": GAIN}
SEEDS = {
    "metric": said(TEXT, "of what follows"),
    "accuracies": listed(SHARE),
    "mean": SHARE,
    "deviation": POSITIVE,
    "mean_ci95": interval(NUMBER),
    "verdict": TEXT,
}
SLICE = {"kind": TEXT, "name": TEXT, "n": COUNT, "accuracy": SHARE, "accuracy_ci95": interval(SHARE)}
SLICE |= {"rest_accuracy": SHARE, "p": SHARE, "p_holm": SHARE, "worse": FLAG}
SLICES = table({"looked_at": COUNT, "worse": COUNT, "verdict": TEXT, "found": listed(table(SLICE))})
EPOCH = {
    "epoch": POSITIVE,
    "step": COUNT,
    "train_loss": NUMBER,
    "validation_loss": maybe(POSITIVE),
    "learning_rate": POSITIVE,
    "examples_per_s": POSITIVE,
    "seconds": POSITIVE,
    "best": FLAG,
    "warning": TEXT,
}
LOOP = {
    "examples": COUNT,
    "tokens": COUNT,
    "seconds": said(POSITIVE, "the training loop only"),
    "examples_per_s": POSITIVE,
    "tokens_per_s": POSITIVE,
    "peak_rss_mib": COUNT,
    "loss": maybe(NUMBER),
    "steps": COUNT,
    "precision": {"enum": ["fp32", "bf16"]},
}
ADVICE = listed(table({"topic": TEXT, "text": TEXT, "figure": TEXT}))
ROWS = said(by_name(COUNT), "by split")
NOTHING: Schema = {"type": "null"}


def trained(kept: Keys, of_epoch: Keys, rival: Keys, shown: Schema, sure: Schema) -> Keys:
    """Returns the keys of a training.

    Args:
        kept: figures of the kept adapter.
        of_epoch: figures of each evaluation.
        rival: the figure of a rival.
        shown: a prediction of a sample text.
        sure: its confidence.
    """
    return {
        "run": TEXT,
        "rows": ROWS,
        "train": table(LOOP),
        "validation": said(table(kept | {"loss": maybe(POSITIVE), "epoch": POSITIVE}), "of the kept adapter"),
        "best_metric": said(TEXT, "what chose the adapter"),
        "epochs": listed(table(EPOCH | of_epoch)),
        "samples": listed(table({"text": TEXT, "before": shown, "after": shown, "confidence": sure})),
        "rivals": by_name(table({"seconds": POSITIVE}, {"strength": POSITIVE, "reads": TEXT, **rival})),
        "advice": ADVICE,
    }


ACCURACY, MACRO_F1 = {"accuracy": maybe(SHARE)}, {"macro_f1": maybe(SHARE)}
OF_CLASSES = {"accuracy": maybe(SHARE), "macro_f1": SHARE, "matthews": CORRELATION, "f1": SHARE}
OF_RIVALS = {f"validation_{name}": found for name, found in OF_CLASSES.items()}
TRAINED = trained(ACCURACY, ACCURACY | MACRO_F1, OF_RIVALS, TEXT, SHARE)
OF_VALUES = {"pearson": CORRELATION, "spearman": CORRELATION, "r2": NUMBER, "mae": POSITIVE, "rmse": POSITIVE}
VALUES = {name: said(maybe(found), "null if it is not defined") for name, found in OF_VALUES.items()}
VALUES_TRAINED = trained(VALUES, VALUES, {"validation_rmse": maybe(POSITIVE)}, NUMBER, NOTHING)
OF_LABELS = ("macro_f1", "micro_f1", "subset_accuracy", "average_precision")
LABELS = {name: said(maybe(SHARE), "null if no row has a label") for name in OF_LABELS}
LABELS_TRAINED = trained(LABELS, LABELS, {"validation_macro_f1": maybe(SHARE)}, TEXT, NOTHING)
OF_SEEDS = table({"values": listed(COUNT), "split": TEXT} | SEEDS)
EVALUATED = {
    "n": COUNT,
    "base": maybe(FIGURES),
    "probe": maybe(FIGURES),
    "tfidf": maybe(FIGURES),
    "lora": FIGURES,
    "majority_share": SHARE,
    "temperature": POSITIVE,
    "uncalibrated": table({"loss": POSITIVE, "ece": SHARE, "brier": POSITIVE}),
    "improvement_points": NUMBER,
    "improvement_relative_percent": maybe(NUMBER),
    "comparisons": said(by_name(table(COMPARISON, SCORES)), "LoRA against each other classifier"),
    "mcnemar_p": maybe(SHARE),
    "verdict": TEXT,
    "slices": SLICES,
    "where": TEXT,
    "caution": said(TEXT, "a sentence if the run may know the rows; otherwise empty"),
    "notes": said(listed(TEXT), "how a file was read, and what was left out"),
}
LABEL = {
    "threshold": SHARE,
    "rows": COUNT,
    "chosen": COUNT,
    "precision": said(maybe(SHARE), "null if no row gets the label"),
    "recall": said(maybe(SHARE), "null if no row has the label"),
    "f1": maybe(SHARE),
    "f1_ci95": maybe(interval(SHARE) | CI),
    "average_precision": maybe(SHARE),
    "ece": SHARE,
    "ece_floor": SHARE,
}
LABEL_FIGURES = table(
    LABELS
    | {f"{name}_ci95": maybe(interval(SHARE) | CI) for name in OF_LABELS}
    | {
        "loss": said(POSITIVE, "mean log loss of a label in nats"),
        "ece": said(SHARE, "mean over the labels"),
        "ece_floor": SHARE,
        "per_label": by_name(table(LABEL)),
    },
    {"training_seconds": POSITIVE},
)
WHERE = {key: EVALUATED[key] for key in ("n", "verdict", "slices", "where", "caution", "notes")}
LABELS_EVALUATED = WHERE | {
    "task": {"const": "multilabel"},
    **{name: maybe(LABEL_FIGURES) for name in ("base", "probe", "tfidf")},
    "lora": LABEL_FIGURES,
    "chance_macro_f1": said(maybe(SHARE), "of giving every row every label"),
    "comparisons": said(
        by_name(table(COMPARISON | {"macro_f1": GAIN})), "LoRA against each other model; accuracy is subset accuracy"
    ),
}
CHOSEN_BY = {
    "best_metric": said(TEXT, "what chose the adapter; empty if that is not known"),
    "precision": {"enum": ["fp32", "bf16"]},
}
VALUE_FIGURES = table(
    VALUES | {f"{name}_ci95": maybe(interval(found) | CI) for name, found in OF_VALUES.items()},
    {"training_seconds": POSITIVE},
)
VALUE_PAIR = {
    "rows": COUNT,
    "metric": TEXT,
    "rmse": interval(POSITIVE) | {"description": "of the first and of the second"},
    "mae": interval(POSITIVE) | {"description": "of the first and of the second"},
    "gain": said(NUMBER, "how much lower the RMSE of the second is"),
    "gain_ci95": interval(NUMBER) | CI,
    "p": SHARE,
    "pairs": said(COUNT, "pairs for whose number the test is corrected"),
    "significant": FLAG,
    "rows_to_settle": maybe(COUNT),
    "verdict": TEXT,
}
COVERAGE = {"level": SHARE, "half_width": POSITIVE, "covered": SHARE, "covered_ci95": interval(SHARE) | CI}
VALUES_EVALUATED = WHERE | {
    "task": {"const": "regression"},
    **{name: maybe(VALUE_FIGURES) for name in ("base", "probe", "tfidf")},
    "lora": VALUE_FIGURES,
    "comparisons": said(by_name(table(VALUE_PAIR)), "LoRA against each other model"),
    "coverage": said(listed(table(COVERAGE)), "how often the intervals hold the number"),
}
UNANSWERED = table(
    {"text": TEXT, "label": NOTHING, "confidence": NOTHING, "probabilities": by_name(NOTHING), "error": TEXT},
    {"text_pair": TEXT, "abstained": NOTHING, "labels": NOTHING, "explanation": NOTHING},
)
BETWEEN = {"first": TEXT, "second": TEXT}
COMPARED = {"n": COUNT, "metric": TEXT, "ranking": listed(TEXT), "where": TEXT, "note": TEXT}
EXPLANATION = table({"label": TEXT, "words": listed(table({"word": TEXT, "attribution": maybe(NUMBER)}))})
PREDICTED = table(
    {
        "text": TEXT,
        "label": said(maybe(TEXT), "null if --abstain gives none"),
        "confidence": SHARE,
        "probabilities": said(by_name(SHARE), "by label"),
    },
    {"text_pair": TEXT, "abstained": FLAG, "labels": said(listed(TEXT), "--sets"), "explanation": EXPLANATION},
)
VALUE = {"text": TEXT, "value": NUMBER, "interval": said(maybe(interval(NUMBER)), "null with too few validation rows")}
NO_VALUE = {"text": TEXT, "value": NOTHING, "interval": NOTHING, "error": TEXT}
LABELLED = {"text": TEXT, "labels": said(listed(TEXT), "the most probable first"), "probabilities": by_name(SHARE)}
UNLABELLED = {"text": TEXT, "labels": NOTHING, "probabilities": by_name(NOTHING), "error": TEXT}
SHADOW = {
    "adapter": TEXT,
    "candidate": TEXT,
    "texts": said(COUNT, "that both answered"),
    "agreed": COUNT,
    "disagreed": COUNT,
    "agreement": said(maybe(SHARE), "null without texts"),
    "labelled": COUNT,
    "unlabelled": COUNT,
    "repeated": COUNT,
    "comparison": said(maybe(table(COMPARISON)), "the candidate against the adapter; null without labels"),
    "decision": {"enum": ["promote", "keep", "undecided"]},
    "verdict": TEXT,
}
ENVIRONMENT = dict.fromkeys(("python", "bertlora", "torch", "transformers", "peft", "device", "precision"), TEXT)

SCHEMAS: dict[str, Schema] = {
    "prepare": table(
        {
            "data": TEXT,
            "rows": ROWS,
            "labels": listed(TEXT),
            "fingerprint": TEXT,
            "checks": listed(CHECK),
            "notes": listed(TEXT),
        }
    ),
    "audit": table(
        {
            "doubtful": said(
                listed(table({"row": COUNT, "given": TEXT, "suggested": TEXT, "confidence": SHARE})),
                "most doubtful first",
            ),
            "rows": COUNT,
            "folds": COUNT,
            "accuracy": SHARE,
            "seconds": POSITIVE,
        }
    ),
    "plan": table(
        {
            "trainable": COUNT,
            "total": COUNT,
            "trainable_percent": POSITIVE,
            "lora_parameters": COUNT,
            "adapter_bytes": COUNT,
            "targets": said(listed(TEXT), "names of modules"),
        },
        {
            "memory_mib": COUNT,
            "rows": said(by_name(COUNT), "by split; this and what follows is there with data"),
            "steps": maybe(COUNT),
            "epochs": POSITIVE,
            "examples": COUNT,
            "tokens": said(COUNT, "that the model reads in all training steps together"),
            "evaluations": COUNT,
            "seconds": said(maybe(POSITIVE), "of train as a whole"),
            "seconds_range": interval(POSITIVE),
            "seconds_of": said(by_name(POSITIVE), "by part: start, rivals, steps, evaluations"),
            "seconds_a_step": said(POSITIVE, "of a step, besides its tokens"),
            "seconds_a_token": said(POSITIVE, "of a token in training"),
        },
    ),
    "train": {
        "anyOf": [
            table(TRAINED, {"seeds": OF_SEEDS}),
            said(table(LABELS_TRAINED), "of several labels"),
            said(table(VALUES_TRAINED), "a regression"),
        ]
    },
    "demo": table(
        TRAINED
        | {
            "evaluation": table(EVALUATED),
            "report": TEXT,
            "sizes": table({"adapter": COUNT, "base": COUNT, "run": COUNT}),
        }
    ),
    "evaluate": {
        "anyOf": [
            table(EVALUATED, CHOSEN_BY),
            said(table(LABELS_EVALUATED, CHOSEN_BY), "of several labels"),
            said(table(VALUES_EVALUATED, CHOSEN_BY), "a regression"),
        ]
    },
    "compare": {
        "anyOf": [
            table(
                COMPARED
                | {
                    "runs": by_name(FIGURES),
                    "pairs": listed(table(BETWEEN | COMPARISON, SCORES)),
                    "choice": maybe({"type": "object"}),
                }
            ),
            said(
                table(
                    COMPARED
                    | {
                        "task": {"const": "multilabel"},
                        "runs": by_name(LABEL_FIGURES),
                        "pairs": listed(table(BETWEEN | COMPARISON | {"macro_f1": GAIN})),
                        "choice": NOTHING,
                    }
                ),
                "of several labels",
            ),
            said(
                table(
                    COMPARED
                    | {
                        "task": {"const": "regression"},
                        "runs": by_name(VALUE_FIGURES),
                        "pairs": listed(table(BETWEEN | VALUE_PAIR)),
                        "choice": NOTHING,
                    }
                ),
                "regressions",
            ),
            said(
                table(
                    COMPARED
                    | {
                        "seeds": listed(COUNT),
                        "runs": by_name(table(SEEDS)),
                        "pairs": listed(table(BETWEEN | PAIR | {"p": SHARE, "p_seeds": SHARE})),
                    }
                ),
                "with --seeds",
            ),
            said(
                table({"where": TEXT, "note": TEXT, "shadows": listed(table(SHADOW))}),
                "the log of a server's shadows",
            ),
        ]
    },
    "report": table({"report": TEXT}, {"facts": {"type": "object"}}),
    "predict": {
        "anyOf": [
            PREDICTED,
            said(UNANSWERED, "a blank text of a file"),
            said(table(VALUE, {"text_pair": TEXT, "explanation": {"type": "object"}}), "a regression"),
            said(table(NO_VALUE, {"text_pair": TEXT, "explanation": NOTHING}), "a regression, a blank text of a file"),
            said(table(LABELLED, {"text_pair": TEXT, "explanation": {"type": "object"}}), "several labels"),
            said(table(UNLABELLED, {"text_pair": TEXT, "explanation": NOTHING}), "several labels, a blank text"),
            said(table({"out": TEXT, "texts": COUNT}), "with --out"),
        ]
    },
    "score": table(
        {
            "out": TEXT,
            "rows": COUNT,
            "quarantined": said(COUNT, "rows that cannot be scored"),
            "quarantine": said(TEXT, "the file that lists them; empty without any"),
            "resumed": said(COUNT, "rows of both kinds that were done at an earlier start"),
            "seconds": POSITIVE,
            "rows_per_s": said(POSITIVE, "of this start"),
            "precision": TEXT,
        }
    ),
    "export": table(
        {"format": TEXT, "to": TEXT, "bytes": COUNT, "base_bytes": COUNT},
        {
            "texts": COUNT,
            "largest_difference": POSITIVE,
            "rows": said(COUNT, "validation rows on which a format that rounds was checked"),
            "before": by_name(NUMBER),
            "after": by_name(NUMBER),
            "lost_points": said(NUMBER, "of the first figure"),
            "quantised_products": COUNT,
            "other_products": COUNT,
            "texts_per_s": said(by_name(POSITIVE), "on this machine, by what runs the texts"),
            "notes": listed(TEXT),
        },
    ),
    "verify": table(
        {
            "path": TEXT,
            "format": TEXT,
            "texts": COUNT,
            "largest_difference": POSITIVE,
            "tolerance": said(POSITIVE, "how far a logit may differ"),
            "precision": {"enum": ["fp32", "bf16"]},
            "files": said(COUNT, "files whose SHA-256 was checked"),
            "made_on": said(by_name(TEXT), "processor and versions that gave the answers"),
        }
    ),
    "push": table(
        {
            "repo": TEXT,
            "private": FLAG,
            "files": listed(table({"path": TEXT, "bytes": COUNT})),
            "bytes": COUNT,
            "sent": said(FLAG, "false after a no"),
        },
        {"url": TEXT, "commit": TEXT},
    ),
    "serve": said(table({"url": TEXT, "adapters": listed(TEXT)}), "printed when it listens"),
    "cache": table({"model": TEXT, "folder": TEXT, "sha256": TEXT, "bytes": COUNT}),
    "recipes": {"anyOf": [table({"recipes": by_name(TEXT)}), said(table({"model": TEXT, "rank": COUNT}), "of NAME")]},
    "env": table(ENVIRONMENT | {"threads": COUNT}),
}


def schemas() -> dict[str, str]:
    """Returns the text of each schema by its file's name."""
    return {
        f"{verb}.json": json.dumps({"$schema": DIALECT, "title": f"bertlora {verb} --json", **schema}, indent=1) + "\n"
        for verb, schema in SCHEMAS.items()
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in schemas().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
