#!/usr/bin/env bash
# Makes a Debian 12 or Ubuntu 24.04 machine ready for splitbrain; run by `vagrant up`, as root. Cut off half-way, or run
# again, it does what is left; with nothing left it changes nothing.
#
#   CHECKOUT          where splitbrain is (/home/vagrant/splitbrain)
#   OWNER             whose it is (vagrant)
#   SPLITBRAIN_PROXY  an HTTP proxy for apt and PyPI; empty: none
#
# A folder vagrant/packages in the checkout does without a network: *.deb in it are installed first, and Python's
# packages are taken from its uv-cache and wheels (see README.md for how to fill it).
set -euo pipefail

readonly CHECKOUT=${CHECKOUT:-/home/vagrant/splitbrain} OWNER=${OWNER:-vagrant} PROXY=${SPLITBRAIN_PROXY:-}
readonly PACKAGES=$CHECKOUT/vagrant/packages

say() { printf 'provision: %s\n' "$*"; }
die() { printf 'provision: %s\n' "$*" >&2 && exit 69; } # EX_UNAVAILABLE, sysexits.h

# Writes standard input to a file, only where that is a change.
put() {
    local new
    new=$(mktemp)
    cat >"$new"
    if ! cmp -s "$new" "$1"; then
        say "writing $1"
        install -D -m "${2:-644}" "$new" "$1"
    fi
    rm "$new"
}

as_owner() { runuser -u "$OWNER" -- env HOME="$(getent passwd "$OWNER" | cut -d: -f6)" "$@"; }

proxy() {
    if [[ $PROXY ]]; then
        printf 'Acquire::http::Proxy "%s";\nAcquire::https::Proxy "%s";\n' "$PROXY" "$PROXY" |
            put /etc/apt/apt.conf.d/90splitbrain-proxy
        python_from+=(http_proxy="$PROXY" https_proxy="$PROXY")
    else
        rm -f /etc/apt/apt.conf.d/90splitbrain-proxy
    fi
}

offline() {
    [[ -d $PACKAGES ]] || return 0
    local package missing=()
    for package in "$PACKAGES"/*.deb; do
        [[ -e $package ]] || continue
        [[ $(dpkg-query -W -f '${db:Status-Abbrev}' "$(dpkg-deb -f "$package" Package)" 2>/dev/null) == ii* ]] ||
            missing+=("$package")
    done
    if ((${#missing[@]})); then
        say "installing ${#missing[@]} packages of $PACKAGES"
        DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}" \
            >/dev/null || die "the packages in $PACKAGES do not make a whole (see above); fill it anew, see README.md"
    fi
    if [[ -d $PACKAGES/uv-cache ]]; then
        python_from+=(UV_OFFLINE=1 UV_CACHE_DIR="$PACKAGES/uv-cache")
    fi
    if compgen -G "$PACKAGES/wheels/uv-*.whl" >/dev/null; then
        python_from+=(PIP_NO_INDEX=1 PIP_FIND_LINKS="$PACKAGES/wheels")
    fi
}

[[ -x $CHECKOUT/.ci/setup ]] || die "there is no splitbrain in $CHECKOUT: \`vagrant rsync\` puts it there"
python_from=()
proxy
offline
modprobe openvswitch || die "this box's kernel has no openvswitch module; on Ubuntu: apt install linux-modules-extra-\$(uname -r)"
modprobe sch_netem || die "this box's kernel has no netem; on Ubuntu: apt install linux-modules-extra-\$(uname -r)"

id "$OWNER" >/dev/null 2>&1 || die "there is no user $OWNER; name the owner of $CHECKOUT: OWNER=…"
# The set-up is run as the one whose checkout it is, and asks sudo for Debian's packages, as on everyone's machine. The
# simulator is not what one has this machine for, and where the processor is emulated it would compile for minutes.
as_owner env SIMULATOR=python ${python_from[@]+"${python_from[@]}"} "$CHECKOUT/.ci/setup" ||
    die "the set-up failed (see above); \`vagrant provision\` tries again and goes on where it stopped"

# In the checkout, so that runs go to its runs/.
put /usr/local/bin/splitbrain 755 <<END
#!/bin/sh
cd $CHECKOUT && exec .ci/privileged .venv/bin/splitbrain "\$@"
END
