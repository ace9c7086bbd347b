"""Schedules and order. Airflow reads vaewatch.py and broken_datasets.py; the other modules serve them."""
