"""Maelstrom's protocol, from both sides: JSON lines on standard input and output, as Jepsen's Maelstrom speaks them.

- `driver`: ``python -m apps.maelstrom raft`` runs a `Process` of ours as a binary that Maelstrom can run. The
  processes are in `lin_kv` (our Raft), `crdt` (broadcast, sets, counters) and `simple` (echo, unique ids).
- `bridge`: the other way round, a `Process` that stands for a binary of anybody's, which the runtime or the simulator
  keeps as a child. `services` are the key-value stores and the clock that Maelstrom offers to nodes.
- `protocol` is what both speak: bytes in, messages or errors out; no I/O.

Source: Maelstrom's doc/protocol.md, doc/workloads.md and doc/services.md.
"""
