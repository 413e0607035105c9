#!/usr/bin/env bash
# Builds the image for publishing, and pushes it when told where to.
#
#   container/build-and-push.sh --multi-arch                        amd64 and arm64, kept in the local store
#   container/build-and-push.sh --multi-arch --push HOST/NAME:TAG   the same, and pushed there
#   container/build-and-push.sh --push HOST/NAME:TAG                this machine's architecture
#
#   --target standard|full    (standard)      --engine podman|docker    (podman where there is one)
#
# Another architecture than this machine's needs qemu-user-static (binfmt) and a base image from a registry:
# one that was made here from Debian's packages has this machine's architecture, and its certificate
# authorities, and so is never pushed.
set -euo pipefail

# shellcheck source=container/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
trap report_failed_step EXIT

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
architectures=()
target=standard
repository=''
engine=''

fail() {
    printf '%s\n' "$*" >&2
    exit 1
}

value_of() { [[ $# -ge 2 && -n $2 && $2 != -* ]] || fail "$1 needs a value${3:+, $3}"; }

while (($# > 0)); do
    case $1 in
        --multi-arch) architectures=(amd64 arm64) ;;
        --push)
            value_of "$1" "${2:-}" 'the repository to push to, for example --push registry.example/me/opencode-actors:1.0'
            repository=$2
            shift
            ;;
        --target)
            value_of "$1" "${2:-}"
            target=$2
            shift
            ;;
        --engine)
            value_of "$1" "${2:-}"
            engine=$2
            shift
            ;;
        -h | --help)
            sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
            exit
            ;;
        *) fail "unknown argument: $1 (--help says what there is)" ;;
    esac
    shift
done

[[ $target == standard || $target == full ]] || fail "there is no target '$target': standard or full"
if [[ -z $engine ]]; then
    if command -v podman >/dev/null; then engine=podman; else engine=docker; fi
fi
command -v "$engine" >/dev/null || fail "$engine is not installed"
((${#architectures[@]})) || architectures=("$(uname -m | sed 's/x86_64/amd64/;s/aarch64/arm64/')")

local_name=localhost/opencode-actors-release:$target
base=$(sed -n 's/^ARG BASE=//p' "$here/Containerfile")
step 'Python package' install_package ''
context=$("$VENV/bin/python" -c 'from opencode_actors.image import load_context; print(load_context().hash)') ||
    fail 'the label that tells what the image is made of could not be computed: nothing was built'
labels=(--label "opencode-actors.context=$context")

# A base made on this machine would be published under the name of Debian's.
refuse_own_base() {
    local made
    made=$("$engine" image inspect --format '{{index .Config.Labels "opencode-actors.base"}}' "$base" 2>/dev/null || true)
    [[ $made != made-here ]] ||
        fail "$base was made on this machine, with its certificate authorities: it is not for publishing.
Remove it and build where a registry has it:  $engine image rm $base"
}

with_podman() {
    podman manifest rm "$local_name" >/dev/null 2>&1 || podman image rm "$local_name" >/dev/null 2>&1 || true
    podman manifest create "$local_name" >/dev/null
    local architecture
    for architecture in "${architectures[@]}"; do
        printf 'building %s for %s\n' "$target" "$architecture"
        podman build --platform "linux/$architecture" --target "$target" "${labels[@]}" \
            --manifest "$local_name" --file "$here/Containerfile" "$here"
    done
    if [[ -n $repository ]]; then podman manifest push --all "$local_name" "docker://$repository"; fi
}

with_docker() {
    local platforms output
    platforms=$(printf ',linux/%s' "${architectures[@]}")
    docker buildx version >/dev/null 2>&1 || fail 'docker has no buildx plugin, which builds for several architectures'
    output=(--output "type=oci,dest=opencode-actors-$target.tar")
    [[ -z $repository ]] || output=(--push --tag "$repository")
    docker buildx build --platform "${platforms#,}" --target "$target" "${labels[@]}" "${output[@]}" \
        --file "$here/Containerfile" "$here"
}

if [[ -n $repository ]]; then refuse_own_base; fi
"with_$engine"
if [[ -n $repository ]]; then
    printf 'pushed %s (%s)\n' "$repository" "${architectures[*]}"
else
    printf 'built (%s); nothing was pushed: --push REPOSITORY does that\n' "${architectures[*]}"
fi
