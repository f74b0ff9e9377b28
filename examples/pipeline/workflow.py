"""The workflow of workflow.toml in Python: `jobcloud workflow set examples/pipeline/workflow.py`."""

from jobcloud.workflow import Node, Workflow

with Workflow("sales", description="the sales of each hour") as flow:
    extract = Node("extract")
    transform = Node("transform")
    load = Node("load")
    extract >> transform >> load

if __name__ == "__main__":
    print(flow)
