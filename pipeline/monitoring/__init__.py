"""Whether tonight's records are like those that the model learned, and whether the night went as usual.

Belongs here: what earlier batches say is usual, and what of tonight is worth reporting. Does not: whether one
record is odd, the numbers that are judged (detection/measures.py), or reporting it (notify/).

    judgement    numbers and history → findings with severity and words; pure
    extremes     several records that score far beyond all earlier batches; pure
    weighing     how much a finding says against tonight's flags; pure
    advice       how columns are named, and what to do about them
    watch        where each number of a batch comes from, and the order of it
    store        one row a batch in the ledger's database
"""
