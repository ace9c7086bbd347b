"""From files that landed to accepted records, or to records and batches set aside with their reasons.

batches      which files make up which batch, and whether they are still being written
guard        a stranger's Parquet, read in a child process
relations    the files as DuckDB relations, with rule breakers marked
validation   the contract held against them
"""
