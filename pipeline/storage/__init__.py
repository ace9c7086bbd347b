"""Where results are kept: a relational database for states and words, Delta tables for records and scores.

Belongs here: tables, transactions, migrations. Does not: what a row means to anybody.
"""
