"""Everything between storage and the model, for tables of records that arrive in batches. No Airflow.

Layers, from what a person or a task calls down to what everything rests on. None imports from a layer above
it (import-linter checks this):

    cli, display             verbs in a shell, and how their output looks in a terminal
    steps, web               one function per task, each returning a receipt; the review page and its API
    notify, doctor           digests and alerts; whether this installation is fit to run
    training                 from a window of records to a registered version, and reproducing one
    report                   one page per batch and per training; what a flag came from; metrics for scraping
    results                  queries over the results, and exports of them
    review                   the queue, verdicts, groups, rules, what they add up to
    monitoring, evaluation   whether a batch is like the others; challenger against champion
    installation             one place that opens everything: settings, datasets, ledger, tables, registry
    registry, mail           the only importer of MLflow; a plain message by e-mail
    detection                features, model, calibration, reasons: versioned as one; scoring
    records                  which records a model reads, learns from, and never sees
    inference                a first dataset file from a folder of Parquet
    incoming                 what has landed, guarded reading, accepted or set aside
    expectations             the only importer of Great Expectations
    storage                  the ledger's and the review's tables, the Delta tables
    config                   a dataset's file, the contract and derived columns in it, the environment
    sample, sql, misread     a feed with planted truth; SQL text; what was probably meant
    numerals                 how numbers are written for people
    errors                   the tree of errors
"""
