"""Whether tonight's records are like those that the model learned, and whether the night went as nights go.

Belongs here: what is measured of a batch, what earlier batches say is usual, what is worth telling, and
telling it. Does not: whether one record is odd (detector.py), or what the contract promises (validation.py).

    reference    how each modelled column lay in training; saved with the detector
    measures     numbers of one batch against it
    judgement    numbers and history → findings with severity and words; pure
    weighing     how much a finding says against tonight's flags; pure
    advice       how columns are named, and what to do about them
    watch        where each number of a batch comes from, and the order of it
    alerts       telling people, once
    metrics      the same for Prometheus
    store        one row a batch in the ledger's database
"""
