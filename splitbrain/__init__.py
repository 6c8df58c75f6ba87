"""splitbrain: what a distributed system does when the network breaks. The public names, re-exported."""
