"""Features and log -> click probability."""

import logging

# torchrec's use of symbolic tracing warns at every start, and so does its planner, of settings that are meant here
for _name in ("torch.fx._symbolic_trace", "torchrec"):
    logging.getLogger(_name).setLevel(logging.ERROR)
