"""Where people judge what the model flagged: the queue, verdicts, what they add up to, and the page over it
all.

Belongs here: everything between a published batch of scores and a person's word on a record. Does not: which
records are flagged (detection/scoring.py, detection/calibration.py), or learning from verdicts
(training/training_set.py). Importing this costs nothing.
"""
