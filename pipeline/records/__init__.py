"""Which accepted records a model reads, learns from, never sees, and what people said of them.

accepted       those of one batch, slice by slice
looking_back   which batches another one sees through its derived columns
window         those of a span of days, as SQL
holdout        those that no training sees
verdicts       what people found records to be
"""
