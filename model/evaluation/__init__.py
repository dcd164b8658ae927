"""How well a model retrieves: ranks, the recalls made of them, and the run over a data set."""
