"""A node's part in an engine that runs on several."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rank:
    """Which node this is, and where all of them meet."""

    number: int  # 0 is the first node, which listens for requests
    nodes: int
    address: str  # of the first node
    port: int  # of torch.distributed
    rpc_port: int  # of replicas
