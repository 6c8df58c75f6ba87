"""What a run showed: the history, the nodes' traces and the record of the faults against what was promised.

Pure, all of it: a check reads a run's folder (`history`, `trace`, `fault_record`), never the world that made it, so a
run can be judged again years later. `check` is the whole verdict; `results` is its shape; `linearizability`,
`acknowledged`, `raft_properties` and the others are one promise each.
"""
