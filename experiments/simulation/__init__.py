"""The simulated world: a scenario in virtual time, exactly repeatable, hundreds of seeds a minute.

The processes are the very objects that run on the fabric, made by the same `apps.runtime.kinds` from the same
configuration; the faults are the same strikes. What is modelled here is what lies between them: `kernel` is time,
`network` the fabric and TCP on it, `disk` the durable log, `driver` the event loop of one operating-system process,
`world` puts them together, `seed` plays and judges one seed in memory, `campaign` very many.

Everything random comes from generators seeded by the scenario's seed, each with a purpose of its own, and everything
is decided in an order that depends on nothing else: the same seed gives the same trace to the byte, on any machine.
"""

from experiments.simulation import compiled

__path__[:0] = compiled.path()
