# Sourced by scripts/run and scripts/test: what the machine needs, and a virtual environment with casfs in it.
# shellcheck shell=bash
#
#   setup            for use: the package in $root/.venv
#   setup test       for development: the package's test extra and the programs the test suite drives
#
# The second time it finds the stamp of the first and is done in milliseconds.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
venv=$root/.venv
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin # mkfs, losetup: not in everybody's PATH
unset PYTHONHOME PYTHONPATH VIRTUAL_ENV

# Programs of Debian packages, for the package (build) and for its tests.
test_programs="bindfs:bindfs rsync:rsync git:git fio:fio stress-ng:stress-ng mkfs.xfs:xfsprogs mkfs.btrfs:btrfs-progs mkfs.ext4:e2fsprogs
setfacl:acl getfattr:attr tar:tar gcc:gcc sqlite3:sqlite3 losetup:mount"

say() { printf '%s\n' "$*" >&2; }
die() {
    say "$(basename "$0"): error: $*"
    exit 1
}

setup() {
    local extra=${1-}
    # One set-up at a time in this checkout; the second one waits and then finds the stamp.
    exec 9<"$root"
    flock 9
    install_packages "$extra"
    if ! is_stamped "$extra"; then
        make_venv "$extra"
    fi
    exec 9<&-
}

# --- operating system ---

install_packages() {
    local missing=()
    command -v fusermount3 >/dev/null || missing+=(fuse3)
    if ! is_stamped "$1"; then
        command -v gcc >/dev/null || missing+=(gcc)
        command -v pkg-config >/dev/null || missing+=(pkg-config)
        [[ -e /usr/include/stdio.h ]] || missing+=(libc6-dev)
        { command -v pkg-config >/dev/null && pkg-config --exists fuse3; } || missing+=(libfuse3-dev)
        find_python >/dev/null || missing+=(python3-dev python3-venv)
    fi
    ((${#missing[@]})) && { apt_install "${missing[@]}" || die "install these first: ${missing[*]}"; }
    [[ $1 == test ]] || return 0

    missing=()
    local entry
    for entry in $test_programs; do
        command -v "${entry%%:*}" >/dev/null || missing+=("${entry##*:}")
    done
    # Not fatal: the tests that need a missing program fail and name it, the others run.
    ((${#missing[@]})) && { apt_install "${missing[@]}" || say "missing for some tests: ${missing[*]}"; }
    return 0
}

apt_install() {
    local sudo=()
    command -v apt-get >/dev/null || return 1
    if ((EUID != 0)); then
        command -v sudo >/dev/null || return 1
        # Without a terminal nobody could type a password.
        if sudo -n true 2>/dev/null; then sudo=(sudo -n); elif [[ -t 0 ]]; then sudo=(sudo); else return 1; fi
    fi
    local apt=("${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qy -o DPkg::Lock::Timeout=300)
    local log
    log=$(mktemp)
    say "installing $*"
    local install=("${apt[@]}" install --no-install-recommends "$@") status=0
    # The package lists of a fresh machine are empty or old: fetch them when the first try fails.
    # Without descriptor 9 here, or a service that a package starts would hold the lock for good.
    { "${install[@]}" || { "${apt[@]}" update && "${install[@]}"; }; } >"$log" 2>&1 </dev/null 9<&- || status=1
    ((status == 0)) || tail -n 5 "$log" >&2
    rm -f "$log"
    return "$status"
}

# --- Python ---

# The first Python that is new enough and can make a virtual environment and compile in it.
find_python() {
    local python
    for python in /usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11; do
        command -v "$python" >/dev/null && "$python" -I -c '
import os, sys, sysconfig, ensurepip, venv
header = os.path.join(sysconfig.get_path("include"), "Python.h")
sys.exit(sys.version_info < (3, 11) or not os.path.exists(header))' 2>/dev/null && command -v "$python" && return
    done
    return 1
}

# What an installation depends on: the declared dependencies, the sources of the native accelerator, where the
# checkout lies (the scripts in .venv/bin and the editable install hold its path), and the interpreter below.
stamp() {
    local sources=("$root"/pyproject.toml "$root"/casfs/fuse/native/*.{py,[ch]})
    printf '%s %s %s\n' "$(cat "${sources[@]}" | sha256sum)" "$root" "$(readlink -f "$venv/bin/python")"
}

is_stamped() {
    local file=$venv/.casfs${1:+-$1}
    [[ -x $venv/bin/python && -r $file && $(<"$file") == "$(stamp)" ]]
}

make_venv() {
    local python extra=$1
    python=$(find_python) || die "needs Python 3.11 or newer with its headers and venv (Debian: python3-dev python3-venv)"
    say "installing casfs in $venv (the first time takes a minute)"
    # A virtual environment that was moved or whose Python is gone cannot be mended.
    if [[ ! -x $venv/bin/python || ! -r $venv/.place || $(<"$venv/.place") != "$root $("$venv/bin/python" -V 2>&1)" ]]; then
        "$python" -m venv --clear "$venv" || die "cannot make a virtual environment in $venv"
        printf '%s %s\n' "$root" "$("$venv/bin/python" -V)" >"$venv/.place"
    fi
    local log
    log=$(mktemp)
    # PIP_USER: --user in somebody's pip configuration would make it fail.
    PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 "$venv/bin/python" -m pip install --verbose \
        --editable "$root${extra:+[$extra]}" >"$log" 2>&1 </dev/null || {
        tail -n 30 "$log" >&2
        rm -f "$log"
        die "pip could not install casfs (see above)"
    }
    # The accelerator is optional: nothing fails without it, so say it, with the compiler's errors.
    if grep -q 'built without its native accelerator' "$log"; then
        grep -E 'casfs/fuse/native/.*error: |/ld: |built without its native accelerator' "$log" | sed 's/^ *//' >&2
    fi
    rm -f "$log"
    [[ -z $extra ]] || stamp >"$venv/.casfs-$extra"
    stamp >"$venv/.casfs"
}
