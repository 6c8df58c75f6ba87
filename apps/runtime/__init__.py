"""What gives a `Process` its sockets, disk and time: asyncio with uvloop, framed messages over TCP, a durable log.

``python -m apps.runtime CONFIG.json`` runs one process. `driver` is where an event becomes effects;
`transport` and `framing` are the network, `disk` is the log's thread, `trace` the evidence, `metrics` says how well the
machine kept up.
"""
