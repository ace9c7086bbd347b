"""What a person may say of a dataset and of an installation, and the rules and SQL that follow from it.

Belongs here: files and environment → frozen settings, every fault in one message. Does not: any record.

    dataset     batches, columns, training, flagging, promotion of one dataset
    columns     type, role and rules of one column
    gates       what a challenger must pass
    coherence   whether settings are consistent
    contracts   columns and rules → what can be checked of a record; the tables' schema
    derived     columns computed by SQL from a record and the ones before it
    files       datasets from their YAML files and the environment
    settings    where an installation keeps things
"""
