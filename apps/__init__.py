"""What runs inside the hosts: protocol cores without I/O, and the runtime that gives them sockets, disk and time."""
