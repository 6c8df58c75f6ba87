"""Scenario → faults + workload → history → verdict → report; the worlds it plays in; the command line."""
