"""The command line. Results go to stdout, progress and messages to stderr.

A verb parses its options, calls one function of `bertlora.pipeline` or `Run`, and prints what that returns.

Reading order:

- `app`: `main`, and what an error looks like.
- `verb`, `options`, `recipe_options`: what a verb is, options that several verbs take, recipe keys as options.
- `preparing`, `auditing`, `training`, `evaluating`, `predicting`, `exporting`, `pushing`, `about`: the verbs.
- `texts`: what `predict` reads.
- `console`, `display`, `metrics`, `answers`, `explaining`: what the verbs print with.

Modules are imported at start-up, so they import only click and other light modules at their top.
"""

from bertlora.cli.app import main
from bertlora.cli.verb import verbs

__all__ = ["main", "verbs"]
