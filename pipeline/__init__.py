"""Everything between storage and the model, for tables of records that arrive in batches. No Airflow.

From what a person or a task calls down to what everything rests on; nothing imports from above itself
(import-linter holds it):

    cli, display             verbs in a shell, and how they look in a terminal
    steps, web               one function a task, one receipt each; the review page and its API
    notify, doctor           digests and alerts; whether this installation is fit to run
    training                 from a window of records to a registered version, and again from its notes
    report                   one page a batch and a training; what a flag came from; metrics for scraping
    results                  what a person or a program asks of the results, and files of it
    review                   the queue, verdicts, groups, rules, what they add up to
    monitoring, evaluation   whether a batch is like the others; challenger against champion
    installation             one place that opens everything: settings, datasets, ledger, tables, registry
    registry, mail           the only importer of MLflow; a plain message by e-mail
    detection                features, model, calibration, reasons: the one thing that is versioned; scoring
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
