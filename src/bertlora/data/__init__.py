"""Data: from files and hub data sets to checked, split rows, and from these to tokens.

In reading order: `source` (what a table is), `delimited`, `readers`, `hub` (tables of each kind), `sources` (what the
user named), `columns`, `labels`, `rows` (checked texts), `survey`, `splits`, `checks`, `sharing`, `folder` (what is
written), `prepared` (all of it, in two passes).
"""
