"""Data: from files and hub data sets to checked, split rows, and from rows to model inputs.

Reading order:

1. From a source to rows: `source` (what a table is), `encoding`, `text_file`, `dialect`, `glue` (how files are
   written). The kinds of tables: `delimited`, `json_source`, `excel`, `readers`, `table_source`, `hub`. Then `sources`
   (what the user named), `columns`, `labels`, `label_rules`, `text_batches`, `blank` (texts and labels), `rows` (of a
   raw source).
2. From rows to a prepared folder: `scan` (labels), `splits` (split assignment), `checks`, `split_file`, `folder` (what
   is written), `prepared` (all of it, in two passes). `reviews` are the embedded data.
3. From texts to token ids: `tokenizer` and `tokenizer_rules` (one text), `tokens` (many texts, on disk), `words` (the
   words of a text, their tokens, and what texts are compared by).
4. From ids to model inputs: `template` (one text), `inputs` (many texts, and their batches), `reader` (texts → inputs,
   and a split's inputs with its labels).
"""
