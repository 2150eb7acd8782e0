"""When and where: the Prefect flows. They read the graph from dvc.yaml and name no stage's internals."""
