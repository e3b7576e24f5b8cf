"""Features and log -> click probability."""

import logging

logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)  # torchrec's use of it warns at every start
