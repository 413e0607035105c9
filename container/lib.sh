# shellcheck shell=bash
# Shared by quickstart and test: bring a bare machine to where both can run. Sourced, never run.
#
# Every step looks first and does only what is missing, says in one line what it did and how long it took,
# and keeps what its tools print for the case that it fails.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=$ROOT/.venv

# shellcheck disable=SC2034 # for those who source this
ENGINE_PACKAGES=(podman runc netavark iptables catatonit)
# shellcheck disable=SC2034 # likewise
BASE_PACKAGES=(mmdebstrap debian-archive-keyring)
# shellcheck disable=SC2034 # likewise
COMMON_PACKAGES=(ca-certificates git)

# ---------------------------------------------------------------------------------------- steps

_step=''
_step_log=''
_step_note=''

say() { printf '%s\n' "$*"; }

# step TEXT COMMAND...: the command runs in this shell, with `set -e` in force.
step() {
    local text=$1 begun=${EPOCHREALTIME//[.,]/} took
    shift
    _step=$text _step_note='' _step_log=$(mktemp)
    "$@" >"$_step_log" 2>&1
    took=$(((${EPOCHREALTIME//[.,]/} - begun) / 10000))
    printf '  %-34s %4d.%02d s  %s\n' "$text" $((took / 100)) $((took % 100)) "$_step_note"
    rm -f "$_step_log"
    _step='' _step_log=''
}

# note TEXT...: what a step says beside its time.
note() { _step_note=$*; }

# refuse TEXT: ends with what the user has to do, instead of with a failed step.
refuse() {
    _step=''
    [[ -z $_step_log ]] || rm -f "$_step_log"
    _step_log=''
    printf '\n%s\n' "$1" >&3
    exit 1
}

# Called on EXIT by whoever sources this.
report_failed_step() {
    [[ -n $_step ]] || return 0
    printf '\nfailed: %s\n' "$_step" >&3
    if [[ -s $_step_log ]]; then
        printf 'the last lines that it printed:\n' >&3
        tail -n 25 "$_step_log" | sed 's/^/    /' >&3
    fi
    rm -f "$_step_log"
}

# What is said to the user also reaches them from within a step, whose own output goes to a file.
exec 3>&2

# --------------------------------------------------------------------------------- the machine

is_root() { ((EUID == 0)); }

has() { command -v "$1" >/dev/null 2>&1; }

distribution() {
    # shellcheck disable=SC1091 # every distribution of the last ten years has it
    (. /etc/os-release 2>/dev/null && printf '%s %s' "${ID:-unknown}" "${ID_LIKE:-}") || printf 'unknown'
}

is_debian_like() { [[ " $(distribution) " == *' debian '* || " $(distribution) " == *' ubuntu '* ]]; }

# What must be there on any distribution; the packages are only the way to it on Debian.
missing_commands() {
    has podman || printf 'podman\n'
    has runc || has crun || printf 'runc (or crun)\n'
    has git || printf 'git\n'
    has_init || printf 'catatonit\n'
    [[ -n $(find_python) ]] || printf 'python 3.11 or newer with its venv module\n'
}

has_init() { has catatonit || [[ -x /usr/libexec/podman/catatonit || -x /usr/lib/podman/catatonit ]]; }

python_works() { "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    local candidate
    for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
        if has "$candidate" && python_works "$candidate"; then
            printf '%s' "$candidate"
            return
        fi
    done
}

# Such a system's python3 package cannot help, and its Podman is too old as well.
python_is_old() { has python3 && ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; }

needs_newer_python() {
    printf 'Python 3.11 or newer with its venv module is needed, and none is on PATH.\n'
    if is_debian_like && python_is_old; then
        printf "This system's own is %s: Debian 12, Ubuntu 24.04 or newer is needed.\n" "$(python3 -V)"
    fi
}

# install_packages PACKAGE...: with apt as root; elsewhere says what to install, unless it is all there.
install_packages() {
    local wanted=("$@") missing=() lacking
    if is_root && is_debian_like; then
        if [[ -z $(find_python) ]] && python_is_old; then refuse "$(needs_newer_python)"; fi
        mapfile -t missing < <(missing_packages "${wanted[@]}")
        if ((${#missing[@]} == 0)); then
            note 'all there'
            return
        fi
        apt_install "${missing[@]}"
        note "installed ${missing[*]}"
        return
    fi
    lacking=$(missing_commands)
    [[ -z $lacking ]] || refuse "$(how_to_install "$lacking" "${wanted[@]}")"
    note 'all there'
}

missing_packages() {
    local package state
    for package in "$@"; do
        state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
        [[ $state == installed ]] || printf '%s\n' "$package"
    done
}

apt_install() {
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -qq -y --no-install-recommends "$@"
}

# The python that Debian ships has no venv module of its own.
python_packages() {
    if [[ -z $(find_python) ]]; then printf 'python3\npython3-venv\n'; fi
}

how_to_install() {
    local lacking=$1
    shift
    if is_debian_like && [[ -z $(find_python) ]] && python_is_old; then
        needs_newer_python
        return
    fi
    printf 'This is missing here:\n'
    # shellcheck disable=SC2001 # each line, not each string
    sed 's/^/    /' <<<"$lacking"
    printf '\nInstall it, then run this again.\n'
    case " $(distribution) " in
        *' debian '* | *' ubuntu '*)
            printf '  as root:  apt-get install --no-install-recommends %s python3-venv' "$*"
            ;;
        *' fedora '* | *' rhel '* | *' centos '*) printf '  as root:  dnf install podman runc catatonit git python3' ;;
        *' arch '*) printf '  as root:  pacman -S podman crun catatonit git python' ;;
        *' suse '* | *' opensuse '*) printf '  as root:  zypper install podman runc catatonit git python311' ;;
        *) printf '  podman 4 or newer, runc or crun, catatonit, git, and python 3.11 or newer with venv' ;;
    esac
    printf '\n'
    if ! is_root; then
        printf '\nFor containers without root also: '
        case " $(distribution) " in
            *' debian '* | *' ubuntu '*) printf 'apt-get install --no-install-recommends uidmap slirp4netns\n' ;;
            *) printf 'the packages that bring newuidmap and slirp4netns (or passt)\n' ;;
        esac
        printf 'and subordinate ids:  usermod --add-subuids 100000-165535 --add-subgids 100000-165535 %s\n' "$(id -un)"
    fi
}

# ------------------------------------------------------------------------------- Podman's settings

# A file of our own beside the user's, and only with what this machine needs.
configure_podman() {
    local folder=/etc/containers file wanted
    is_root || folder=${XDG_CONFIG_HOME:-$HOME/.config}/containers
    file=$folder/containers.conf.d/opencode-actors.conf
    wanted=$(podman_settings "$folder")
    if [[ -z $wanted ]]; then
        note 'nothing to change'
        return
    fi
    if [[ -f $file && $(<"$file") == "$wanted" ]]; then
        note 'as it should be'
        return
    fi
    mkdir -p "${file%/*}"
    printf '%s\n' "$wanted" >"$file"
    note "wrote $file"
}

podman_settings() {
    local folder=$1 limits runtime
    limits=$(needed_limits "$folder")
    runtime=$(needed_runtime "$folder")
    [[ -n $limits$runtime ]] || return 0
    printf '# Written by opencode-actors; delete it and it is gone.\n'
    if [[ -n $limits ]]; then printf '[containers]\n%s\n' "$limits"; fi
    if [[ -n $runtime ]]; then printf '[engine]\n%s\n' "$runtime"; fi
}

# The user's own word, in the main file or in another one beside ours.
already_says() {
    local folder=$1 key=$2 file
    for file in "$folder/containers.conf" "$folder"/containers.conf.d/*.conf; do
        [[ -f $file && ${file##*/} != opencode-actors.conf ]] || continue
        if grep -Eq "^[[:space:]]*${key}[[:space:]]*=" "$file"; then return 0; fi
    done
    return 1
}

# Podman gives root's containers 1048576 open files and processes, and fails where it may not.
needed_limits() {
    local files processes most=1048576 pids
    is_root || return 0
    if may_raise_limits || already_says "$1" default_ulimits; then return 0; fi
    files=$(ulimit -Hn) processes=$(ulimit -Hu)
    [[ $files == unlimited ]] && files=$most
    [[ $processes == unlimited ]] && processes=$most
    ((files >= most && processes >= most)) && return 0
    pids=$(</proc/sys/kernel/pid_max)
    ((files > 16384)) && files=16384
    ((processes > pids)) && processes=$pids
    printf 'default_ulimits = ["nofile=%d:%d", "nproc=%d:%d"]' "$files" "$files" "$processes" "$processes"
}

# CAP_SYS_RESOURCE, bit 24
may_raise_limits() {
    local capabilities
    capabilities=$(awk '/^CapEff:/ { print $2 }' /proc/self/status)
    (((0x$capabilities >> 24) & 1))
}

# crun does not run where cgroup v1 is mounted beside v2.
needed_runtime() {
    [[ $(stat -fc %T /sys/fs/cgroup) == cgroup2fs ]] && return 0
    has crun || return 0
    already_says "$1" runtime && return 0
    printf 'runtime = "runc"'
}

# ------------------------------------------------------------------------------------ the package

# install_package EXTRAS: '' or '[dev]'. Done again when pyproject, the interpreter or the place changed.
install_package() {
    local extras=$1 stamp python wanted
    stamp=$VENV/.installed
    python=$(find_python)
    [[ -n $python ]] || refuse "$(needs_newer_python)"
    wanted="$ROOT $("$python" -V) $(sha256sum <"$ROOT/pyproject.toml")"
    if [[ -x $VENV/bin/opencode-actors && -f $stamp ]]; then
        # what the tests need includes what a user needs
        if [[ $(<"$stamp") == "$wanted $extras" || $(<"$stamp") == "$wanted [dev]" ]]; then
            note 'up to date'
            return
        fi
    fi
    rm -f "$stamp"
    if ! { [[ -x $VENV/bin/python ]] && python_works "$VENV/bin/python"; }; then
        rm -rf "$VENV"
        "$python" -m venv "$VENV"
    fi
    "$VENV/bin/python" -m pip install --disable-pip-version-check --quiet --editable "$ROOT$extras"
    printf '%s' "$wanted $extras" >"$stamp"
    note "in $VENV"
}

# -------------------------------------------------------------------------------------- the image

# build_image: the command line looks first, and shows its own progress where there is a terminal.
build_image() {
    local begun=${EPOCHREALTIME//[.,]/} took
    _step='container image'
    "$VENV/bin/opencode-actors" image build
    took=$(((${EPOCHREALTIME//[.,]/} - begun) / 10000))
    printf '  %-34s %4d.%02d s\n' "$_step" $((took / 100)) $((took % 100))
    _step=''
}
