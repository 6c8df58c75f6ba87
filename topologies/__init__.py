"""The network: a plan (pure data), and the fabric that realises it in the kernel."""
