# shellcheck shell=bash
# What scripts/run and scripts/test share: finding what they need and installing
# what is missing. Sourced by bash from the top of the repository.

# say TEXT: a line of the script's own, apart from the output of what it starts.
say() { printf '%s\n' "$*"; }

fail() {
	printf '%s: %s\n' "$(basename "$0")" "$*" >&2
	exit 1
}

need_root() {
	[ "$(id -u)" = 0 ] || fail "this mounts file systems and starts containers; run it as root (sudo $0)"
}

need_node() {
	local advice="install Node.js 20 or newer with npm: 'apt install nodejs npm' on Debian 13 or newer; Debian 12 has an older one, so unpack one from https://nodejs.org/en/download"
	{ command -v node && command -v npm; } >/dev/null || fail "node or npm is missing; $advice"
	local version
	version=$(node -p 'process.versions.node')
	[ "${version%%.*}" -ge 20 ] || fail "node $version is too old; $advice"
}

# A server that a package brings must not start just because a test needs its
# binary. Only an absent policy is replaced, and only while apt runs.
with_no_new_services() {
	local policy=/usr/sbin/policy-rc.d status=0
	if [ -e "$policy" ]; then
		"$@"
		return
	fi
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
	"$@" || status=$?
	rm -f "$policy"
	return $status
}

apt_install() {
	DEBIAN_FRONTEND=noninteractive with_no_new_services \
		apt-get -qq -y -o Dpkg::Use-Pty=0 install --no-install-recommends "$@" >/dev/null
}

# Whether THING is here: a command, a path, or a C library by its pkg-config name.
present() {
	case $1 in
	lib:*) command -v pkg-config >/dev/null && pkg-config --exists "${1#lib:}" ;;
	static:*) command -v "${1#static:}" >/dev/null && ! ldd "$(command -v "${1#static:}")" >/dev/null 2>&1 ;;
	/*) [ -e "$1" ] ;;
	*) PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null ;;
	esac
}

# need_packages THING=PACKAGE...: installs PACKAGE where THING (see present) is
# absent. Things rather than packages are looked for, so that a containerd that
# came another way is used and not replaced.
need_packages() {
	local pair missing=()
	for pair in "$@"; do
		present "${pair%%=*}" || missing+=("${pair#*=}")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	command -v apt-get >/dev/null || fail "these are missing and there is no apt-get to install them: ${missing[*]}"
	say "Installing with apt: ${missing[*]}"
	if ! apt_install "${missing[@]}" 2>/dev/null; then
		apt-get -qq update || fail "apt-get update failed; is there a network?"
		apt_install "${missing[@]}" || fail "apt-get could not install: ${missing[*]}"
	fi
	for pair in "$@"; do
		present "${pair%%=*}" || fail "${pair%%=*} is still missing after installing ${pair#*=}"
	done
}

need_btrfs() {
	grep -qw btrfs /proc/filesystems || modprobe -q btrfs || true
	grep -qw btrfs /proc/filesystems || fail "this kernel has no btrfs, so its driver cannot be tested here"
}

# node_modules as package-lock.json wants it; npm writes the hidden file last.
need_modules() {
	[ node_modules/.package-lock.json -nt package-lock.json ] && [ -x node_modules/.bin/node ] && return
	say "Installing the npm packages (npm ci)"
	npm ci --no-audit --no-fund --loglevel=error >/dev/null || fail "npm ci failed"
}

build() {
	npm run --silent build >"$1" 2>&1 || {
		cat "$1" >&2
		fail "npm run build failed"
	}
}
