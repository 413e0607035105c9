# shellcheck shell=bash
# The Docker Engine that the tests use. Sourced by test, after lib.sh.
#
# One that already runs is used as it is; otherwise one is started for this run alone, with a store of its
# own that goes with it, and without a hand on the machine's firewall: a published port needs only Docker's
# own forwarder, and no container of the tests needs the network.

OPENCODE_ACTORS_TEST_OPENCODE=${OPENCODE_ACTORS_TEST_OPENCODE:-}
OPENCODE_ACTORS_TEST_DOCKER_SOCKET=${OPENCODE_ACTORS_TEST_DOCKER_SOCKET:-}
TESTED_IMAGE=localhost/opencode-actors:latest

_docker_folder=''
_docker_pid=''
_docker_made_bridge=''

# Where any dockerd is installed, nothing: docker.io would drive out a docker-ce that is only stopped.
docker_packages() {
    if ! has dockerd && [[ -z $(running_docker) ]]; then printf 'docker.io\n'; fi
}

# The socket of a Docker Engine that answers, if there is one.
running_docker() {
    local socket host=${DOCKER_HOST:-}
    for socket in "$OPENCODE_ACTORS_TEST_DOCKER_SOCKET" "${host#unix://}" /var/run/docker.sock; do
        if [[ -S $socket ]] && docker_answers "$socket"; then
            printf '%s' "$socket"
            return
        fi
    done
}

docker_answers() { has docker && DOCKER_HOST=unix://$1 timeout 5 docker version >/dev/null 2>&1; }

start_docker() {
    local socket
    socket=$(running_docker)
    if [[ -z $socket ]]; then
        if ! is_root || ! has dockerd; then
            note 'none here, and only root can start one: its tests will say that they need it'
            return
        fi
        launch_docker
        socket=$_docker_folder/docker.sock
    fi
    OPENCODE_ACTORS_TEST_DOCKER_SOCKET=$socket
    copy_image_to_docker "$socket"
}

launch_docker() {
    local flags
    _docker_folder=$(mktemp -d /var/tmp/oa-docker.XXXXXX) # short: a socket's path has 107 bytes at most
    [[ -e /sys/class/net/docker0 ]] || _docker_made_bridge=yes
    flags=(
        --host "unix://$_docker_folder/docker.sock"
        --data-root "$_docker_folder/data"
        --exec-root "$_docker_folder/run"
        --pidfile "$_docker_folder/docker.pid"
        --exec-opt native.cgroupdriver=cgroupfs
        --iptables=false --ip6tables=false --ip-masq=false
        --log-level warn
    )
    # Not in this terminal's process group: Ctrl-C is for the tests, the daemon ends when they have.
    setsid dockerd "${flags[@]}" >"$_docker_folder/log" 2>&1 </dev/null &
    _docker_pid=$!
    for _ in {1..300}; do
        if docker_answers "$_docker_folder/docker.sock"; then return; fi
        if ! kill -0 "$_docker_pid" 2>/dev/null; then break; fi
        sleep 0.1
    done
    tail -n 20 "$_docker_folder/log"
    return 1
}

# The image is built once, by Podman; Docker gets the same.
copy_image_to_docker() {
    local wanted there format='{{index .Config.Labels "opencode-actors.context"}}'
    wanted=$(podman image inspect --format "$format" "$TESTED_IMAGE")
    there=$(DOCKER_HOST=unix://$1 docker image inspect --format "$format" "$TESTED_IMAGE" 2>/dev/null || true)
    if [[ $there == "$wanted" ]]; then
        note "at $1"
        return
    fi
    podman save --quiet --format docker-archive "$TESTED_IMAGE" | DOCKER_HOST=unix://$1 docker load --quiet
    note "at $1, image copied"
}

stop_docker() {
    [[ -n $_docker_pid ]] || return 0
    kill -TERM "$_docker_pid" 2>/dev/null || true
    wait "$_docker_pid" 2>/dev/null || true
    if [[ -n $_docker_made_bridge && -e /sys/class/net/docker0 ]] && has ip; then ip link delete docker0 || true; fi
    # dockerd mounts its data directory onto itself
    awk -v folder="$_docker_folder/" 'index($2, folder) == 1 { print $2 }' /proc/mounts | sort -r |
        while read -r mounted; do umount "$mounted" || true; done
    rm -rf --one-file-system "$_docker_folder"
    _docker_pid=''
}

# The same binary as in the image, for the tests that need a server but no container.
unpack_opencode() {
    local id folder container
    if [[ -n $OPENCODE_ACTORS_TEST_OPENCODE ]]; then
        note "$OPENCODE_ACTORS_TEST_OPENCODE"
        return
    fi
    id=$(podman image inspect --format '{{.Id}}' "$TESTED_IMAGE")
    folder=$VENV/opencode
    OPENCODE_ACTORS_TEST_OPENCODE=$folder/bin/opencode
    if [[ -x $OPENCODE_ACTORS_TEST_OPENCODE && -f $folder/image && $(<"$folder/image") == "$id" ]]; then
        note 'there'
        return
    fi
    rm -rf "$folder"
    mkdir -p "$folder/bin"
    container=$(podman create --label opencode-actors-test=unpack "$TESTED_IMAGE")
    podman cp "$container:/usr/local/bin/opencode" "$OPENCODE_ACTORS_TEST_OPENCODE"
    podman rm "$container"
    printf '%s' "$id" >"$folder/image"
    note 'taken from the image'
}
