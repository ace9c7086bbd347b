"""The review page and its JSON API: one FastAPI application, served alone or inside Airflow's.

Belongs here: requests, who may make them, and what a page looks like. Does not: what the queue holds or a
verdict does (review/). Importing this costs nothing.
"""
