"""Import of Airflow's DAG files as a manifest for `jobcloud apply`.

A DAG file is a Python program. It is parsed and never run: `values` are what its literals stand for, `reading` follows
its statements to the DAGs and tasks, `conversion` makes jobs and workflows of them, and `report` has the manifest.
"""
