"""One page per scored batch and per training: can it be trusted, what changed, what was flagged and why.

Belongs here: self-contained pages, with no script and no network, written beside the contract's page. Does
not: numbers (monitoring/), or the review page, which serves them.

    trust      from facts to the sentence at the top; pure
    standing   what became of a training, for the top of its page
    batch      the facts of a batch, and its page
    newest     the pages of a version's newest batches, written again
    glance     the newest batches of a dataset in a few words
    training   the facts of a training, and its page
    gates      what an evaluation measured, for both pages
    plots      inline SVG
    sheet      templates, and writing a page whole or not at all
    metrics    the same facts for Prometheus
    trace      from a flagged record back to everything that led to it
"""
