"""The emulated world: a scenario on a real fabric, with real processes, sockets and disks.

`world` is the side of the command line, `inside` the side within the sandbox; `watch`, `metrics` and `pcap` look at
what happens there without crossing the network under test.
"""
