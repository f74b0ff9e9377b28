"""Metrics of a scheduler process: counting, measuring, and the answer to a scrape.

`tally` counts in plain numbers, on the threads on which things happen. `measured` has wrappers that measure the store,
the driver, the core and the API. `exposition` turns all of it into Prometheus' families when somebody scrapes.
`catalogue` declares the families.
"""
