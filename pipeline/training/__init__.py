"""From a window of records to a registered version, and from a version's notes to the same one again.

occasion       whether tonight is worth a training
training_set   what is learned and what calibrates
experiment     one training, whole
provenance     what it was made from; reproduction: made again from that
"""
