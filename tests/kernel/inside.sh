#!/bin/bash
# Run by `make test-kernel`, as root in the emulated machine, whose root is that of the machine outside, read-only. What
# pytest says goes to /tmp/out/tests.log and its exit status to /tmp/out/verdict: a machine without udev cannot hand
# back an exit status.
#
#   inside.sh CHECKOUT LIBRARY PYTEST-ARGUMENT…
checkout=$1 library=$2
shift 2

# Without a cache every look at a file is a question to the machine outside, and an import asks hundreds of them. Where
# these two are now, virtme has mounted them without.
cached() {
    umount "$2" && mkdir -p "$3" && mount -t 9p -o version=9p2000.L,trans=virtio,msize=512000,ro,cache=loose "$1" "$3"
}

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
export PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 SPLITBRAIN_KERNEL_LANE=/tmp/out
{
    cached virtme.initmount1 /tmp/checkout "$checkout" && cached virtme.initmount2 /tmp/library "$library" &&
        cd "$checkout" || exit
    modprobe tun # there is no udev to make /dev/net/tun before somebody opens it
    uname -srv
    .venv/bin/python -m pytest -p no:cacheprovider -v --durations=8 "$@"
    echo $? >/tmp/out/verdict
} >/tmp/out/tests.log 2>&1
sync
