"""Features and log -> click probability."""

import logging
import warnings

# torchrec's use of symbolic tracing warns at every start, and so does its planner, of settings that are meant here
for _name in ("torch.fx._symbolic_trace", "torchrec"):
    logging.getLogger(_name).setLevel(logging.ERROR)
# torchrec's tables are ShardedTensors, whose checkpoints torch calls old, and its planner's own default calls itself so
for _module in (r"torch\.distributed\.checkpoint", r"torchrec\.distributed\.planner"):
    warnings.filterwarnings("ignore", category=FutureWarning, module=_module)
