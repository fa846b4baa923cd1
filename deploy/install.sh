#!/bin/sh
# Installs cli-bridge as a service on Debian 12+ or Ubuntu 22.04+, from this checkout; run again, it upgrades.
#
#   sudo deploy/install.sh [--dry-run] [--no-clis] [--tunnel HOSTNAME] [--no-start]
#   sudo deploy/install.sh --uninstall [--dry-run]
#
#   --dry-run          say what would be done, and do nothing
#   --no-clis          do not install the Claude Code and Codex command lines (770 MB)
#   --tunnel HOSTNAME  listen on a unix socket and set up cloudflared's configuration and unit for HOSTNAME
#   --no-start         install, but do not start anything
#   --uninstall        stop and remove the program; data, settings and backups stay
#
# What it makes: users cli-bridge and cli-bridge-run, /opt/cli-bridge (program), /etc/cli-bridge/env (settings),
# /var/lib/cli-bridge (data), /var/backups/cli-bridge, units in /etc/systemd/system, /usr/local/bin/cli-bridge.
set -eu
umask 022

SOURCE=$(cd "$(dirname "$0")/.." && pwd)
PROGRAM=/opt/cli-bridge
SETTINGS=/etc/cli-bridge/env
DATA=/var/lib/cli-bridge
BACKUPS=/var/backups/cli-bridge
UNITS=/etc/systemd/system
COMMAND=/usr/local/bin/cli-bridge
SOCKET=/run/cli-bridge/bridge.sock
KEPT_RELEASES=2

dry='' clis=yes tunnel='' start=yes uninstall=''

usage() { sed -n '2,15s/^# \{0,1\}//p' "$0"; }
say() { printf '%s\n' "$*"; }
step() { printf '\n== %s\n' "$*"; }
die() {
    printf 'install.sh: %s\n' "$*" >&2
    exit 1
}

while [ $# -gt 0 ]; do
    case "$1" in
    --dry-run) dry=yes ;;
    --no-clis) clis='' ;;
    --no-start) start='' ;;
    --uninstall) uninstall=yes ;;
    --tunnel)
        [ $# -ge 2 ] || die "--tunnel needs a host name"
        tunnel=$2
        shift
        ;;
    -h | --help)
        usage
        exit 0
        ;;
    *)
        usage >&2
        exit 2
        ;;
    esac
    shift
done
case "$tunnel" in
*[!A-Za-z0-9.-]*) die "$tunnel is not a host name" ;;
esac

# Do a command, or in a dry run only show it.
run() {
    if [ -n "$dry" ]; then
        printf '   would run: %s\n' "$*"
    else
        "$@"
    fi
}

# The same for a command whose chatter nobody reads; what goes wrong is on its standard error.
quietly() {
    if [ -n "$dry" ]; then run "$@"; else "$@" >/dev/null; fi
}

# Write standard input to a file: put PATH MODE OWNER. The file is replaced in one step.
put() {
    if [ -n "$dry" ]; then
        cat >/dev/null
        printf '   would write: %s (mode %s, %s)\n' "$1" "$2" "$3"
        return
    fi
    new=$(mktemp "$1.XXXXXX")
    cat >"$new"
    chown "$3" "$new"
    chmod "$2" "$new"
    mv -f "$new" "$1"
}

systemd_runs() { [ -d /run/systemd/system ]; }

# --- uninstall -----------------------------------------------------------------------------------------

if [ -n "$uninstall" ]; then
    [ "$(id -u)" -eq 0 ] || [ -n "$dry" ] || die "run this as root: sudo $0 --uninstall"
    step "Stopping the services"
    for unit in cli-bridge-clis.timer cli-bridge-backup.timer cli-bridge.service; do
        if systemd_runs; then run systemctl disable --now "$unit" || true; fi
    done
    step "Removing the program, its units and its command"
    for unit in cli-bridge.service cli-bridge-backup.service cli-bridge-backup.timer cli-bridge-clis.service \
        cli-bridge-clis.timer; do
        run rm -f "$UNITS/$unit" "$UNITS/multi-user.target.wants/$unit" "$UNITS/timers.target.wants/$unit"
    done
    run rm -f "$COMMAND"
    run rm -rf "$PROGRAM"
    if systemd_runs; then run systemctl daemon-reload; fi
    step "Kept"
    say "   $DATA (data), /etc/cli-bridge (settings), $BACKUPS (backups), the users, and cloudflared."
    say "   To remove them, too: rm -rf $DATA /etc/cli-bridge $BACKUPS; userdel cli-bridge; userdel cli-bridge-run"
    exit 0
fi

# --- what is there -------------------------------------------------------------------------------------

step "Looking at this machine"
[ "$(id -u)" -eq 0 ] || [ -n "$dry" ] || die "run this as root: sudo $0"
[ -f "$SOURCE/pyproject.toml" ] || die "$SOURCE is not a checkout of cli-bridge"
[ -r /etc/os-release ] || die "this is neither Debian nor Ubuntu"
# shellcheck source=/dev/null
system=$(. /etc/os-release && echo "${ID:-} ${VERSION_ID:-}")
python=python3
packages="python3 python3-venv util-linux ca-certificates"
case "$system" in
"debian 1"[2-9] | "debian "[2-9][0-9]) ;;
"debian ") say "   a Debian without a version (testing or unstable): going on" ;;
"ubuntu 22."*)
    # Its python3 is 3.10. universe has 3.11, as a release candidate; Ubuntu 24.04 is the better choice.
    python=python3.11
    packages="python3.11 python3.11-venv util-linux ca-certificates"
    say "   Ubuntu 22.04: its Python is too old; python3.11 is installed from universe beside it"
    ;;
"ubuntu 2"[3-9]* | "ubuntu "[3-9][0-9]*) ;;
*) die "this is $system; Debian 12 or newer, or Ubuntu 22.04 or newer is needed (else: docs/install.md, by hand)" ;;
esac
case "$(uname -m)" in
x86_64) claude_package=claude-code-linux-x64 codex_package=codex-linux-x64 codex_target=x86_64-unknown-linux-musl ;;
aarch64) claude_package=claude-code-linux-arm64 codex_package=codex-linux-arm64 codex_target=aarch64-unknown-linux-musl ;;
*) die "the CLIs exist for x86_64 and aarch64 only, not for $(uname -m)" ;;
esac
say "   $system, $(uname -m)"
systemd_runs || say "   systemd does not run here: the units are installed, but nothing is started"
[ -n "$clis" ] && packages="$packages npm"

step "Installing Debian packages: $packages (a few minutes, the first time)"
missing=''
for package in $packages; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
if [ -n "$missing" ]; then
    run apt-get update -qq
    # shellcheck disable=SC2086 # a list of names
    quietly env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing
else
    say "   all are here"
fi
if [ -z "$dry" ]; then
    "$python" -c 'import sys; raise SystemExit(sys.version_info < (3, 11))' || die "$python is older than 3.11"
fi

step "Users: cli-bridge runs the service, cli-bridge-run the CLIs; neither can log in"
for user in "cli-bridge $DATA" "cli-bridge-run /nonexistent"; do
    name=${user% *}
    if getent passwd "$name" >/dev/null; then
        say "   $name is here"
    else
        run useradd --system --user-group --no-create-home --home-dir "${user#* }" --shell /usr/sbin/nologin "$name"
    fi
done

step "Folders"
run install -d -m 0755 "$PROGRAM" "$PROGRAM/releases" /etc/cli-bridge
run install -d -m 0700 -o cli-bridge -g cli-bridge "$DATA" "$BACKUPS"

# --- the program ---------------------------------------------------------------------------------------

if [ -x "$PROGRAM/current/bin/cli-bridge" ] && [ -e "$DATA/keys.json" ]; then
    step "A backup before the upgrade"
    run "$COMMAND" backup "$BACKUPS" || die "the backup failed, so nothing was changed"
fi

release="$PROGRAM/releases/$(date -u +%Y%m%dT%H%M%SZ)"
step "The program, in a Python environment of its own: $release"
if [ -z "$dry" ]; then
    # Half a release would count as one to go back to.
    trap 'rm -rf "$release"' EXIT
    trap 'exit 1' HUP INT TERM
fi
run "$python" -m venv "$release"
pip_install() {
    run "$release/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir "$@"
}
pip_install --require-hashes --requirement "$SOURCE/deploy/python/requirements.txt"
pip_install --no-deps --no-build-isolation "$SOURCE"
run "$release/bin/cli-bridge" --version
# Where it came from, for BRIDGE_UPDATE_CHECK.
{ [ -n "$dry" ] || "$release/bin/python" -P -m bridge.ops.origin "$SOURCE" installer; } |
    put "$release/origin.json" 0644 root:root
trap - EXIT HUP INT TERM

run install -d -m 0755 "$PROGRAM/docs"
run cp -R "$SOURCE/docs/." "$PROGRAM/docs/"
# What the pages link to. One by one, because a checkout's deploy/ may hold secrets and the CLIs.
for page in README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md data/README.md deploy/clis/README.md \
    deploy/cloudflared/README.md deploy/docker/README.md deploy/monitoring/alerts.yml deploy/monitoring/grafana.json; do
    run install -D -m 0644 "$SOURCE/$page" "$PROGRAM/$page"
done

if [ -n "$clis" ]; then
    step "The two CLIs, in the tested versions: $PROGRAM/clis"
    if [ -z "$dry" ] && cmp -s "$SOURCE/deploy/clis/package-lock.json" "$PROGRAM/clis/.installed"; then
        say "   these versions are here"
    else
        # Into a folder beside, so that nobody ever finds half of them. A running bridge takes the new ones with the
        # next process that it starts; those that run already keep the old program.
        run rm -rf "$PROGRAM/clis.new"
        run install -d -m 0755 "$PROGRAM/clis.new"
        run cp "$SOURCE/deploy/clis/package.json" "$SOURCE/deploy/clis/package-lock.json" \
            "$SOURCE/deploy/clis/.npmrc" "$PROGRAM/clis.new/"
        # The native programs need no install script, and none of anybody else's is run.
        quietly npm ci --prefix "$PROGRAM/clis.new" --ignore-scripts --no-audit --no-fund --loglevel=error
        # The same check as that of `clis upgrade`, before they take the place of others.
        quietly env BRIDGE_ENV_FILE=/dev/null "$release/bin/cli-bridge" clis check \
            --claude "$PROGRAM/clis.new/node_modules/@anthropic-ai/$claude_package/claude" \
            --codex "$PROGRAM/clis.new/node_modules/@openai/$codex_package/vendor/$codex_target/bin/codex" ||
            die "the new CLIs do not pass their check, so those that are there stay: cli-bridge clis check says why"
        run cp "$SOURCE/deploy/clis/package-lock.json" "$PROGRAM/clis.new/.installed"
        run rm -rf "$PROGRAM/clis.old"
        if [ -d "$PROGRAM/clis" ]; then run mv "$PROGRAM/clis" "$PROGRAM/clis.old"; fi
        run mv "$PROGRAM/clis.new" "$PROGRAM/clis"
    fi
fi

step "Switching to it"
run ln -sfn "$release" "$PROGRAM/current.new"
run mv -Tf "$PROGRAM/current.new" "$PROGRAM/current"
if [ -z "$dry" ]; then
    # The newest ones stay, to go back to. What a run that was killed left half done is none, and goes.
    kept=0
    find "$PROGRAM/releases" -mindepth 1 -maxdepth 1 -type d | sort -r | while read -r each; do
        if [ -x "$each/bin/cli-bridge" ] && [ "$kept" -lt "$KEPT_RELEASES" ]; then
            kept=$((kept + 1))
        else
            rm -rf "$each"
        fi
    done
fi

# --- settings, command, units --------------------------------------------------------------------------

step "Settings: $SETTINGS (only the service and root can read it)"
if [ -e "$SETTINGS" ]; then
    say "   it is here, and stays as it is"
    if [ -n "$tunnel" ] && ! grep -q '^BRIDGE_SOCKET=' "$SETTINGS"; then
        say "   for the tunnel, put these two lines into it, and restart the service:"
        say "   BRIDGE_SOCKET=$SOCKET"
        say "   BRIDGE_TRUSTED_PROXY=cloudflare"
    fi
else
    admin_key=''
    [ -n "$dry" ] || admin_key=cba_$("$python" -c 'import secrets; print(secrets.token_urlsafe(32))')
    {
        echo "# Settings of cli-bridge: NAME=value, one a line, without quotes. All of them: $PROGRAM/docs/configuration.md"
        echo "# After a change: systemctl restart cli-bridge"
        echo
        echo "BRIDGE_DATA_DIR=$DATA"
        echo "BRIDGE_ADMIN_KEY=$admin_key"
        echo
        echo "# API keys, if you do not add them in the browser. Set a spending limit in the provider's console as well."
        echo "ANTHROPIC_API_KEY="
        echo "OPENAI_API_KEY="
        echo
        if [ -n "$clis" ]; then
            echo "BRIDGE_CLAUDE_COMMAND=$PROGRAM/clis/node_modules/@anthropic-ai/$claude_package/claude"
            echo "BRIDGE_CODEX_COMMAND=$PROGRAM/clis/node_modules/@openai/$codex_package/vendor/$codex_target/bin/codex"
            echo
        fi
        if [ -n "$tunnel" ]; then
            echo "BRIDGE_SOCKET=$SOCKET"
            echo "BRIDGE_TRUSTED_PROXY=cloudflare"
        else
            echo "BRIDGE_HOST=127.0.0.1"
            echo "BRIDGE_PORT=3456"
        fi
    } | put "$SETTINGS" 0600 cli-bridge:cli-bridge
fi

step "The command: $COMMAND (it changes to the service's user)"
put "$COMMAND" 0755 root:root <<EOF
#!/bin/sh
# cli-bridge with the settings of the service, as the service's user. Written by deploy/install.sh.
export BRIDGE_ENV_FILE=$SETTINGS
if [ "\$(id -u)" -eq 0 ]; then
    exec setpriv --reuid cli-bridge --regid cli-bridge --init-groups --inh-caps=-all -- \\
        env HOME=$DATA $PROGRAM/current/bin/cli-bridge "\$@"
fi
if [ "\$(id -un)" != cli-bridge ]; then
    # Shell completion runs as whoever types. It gets no settings, and so knows no names of keys.
    if [ -n "\${_CLI_BRIDGE_COMPLETE:-}" ] || [ "\${1:-}" = completion ]; then
        BRIDGE_ENV_FILE=/dev/null BRIDGE_DATA_DIR=$DATA exec $PROGRAM/current/bin/cli-bridge "\$@"
    fi
    echo "cli-bridge: run this with sudo" >&2
    exit 1
fi
exec $PROGRAM/current/bin/cli-bridge "\$@"
EOF

step "Units of systemd"
for unit in cli-bridge.service cli-bridge-backup.service cli-bridge-backup.timer cli-bridge-clis.service \
    cli-bridge-clis.timer; do
    put "$UNITS/$unit" 0644 root:root <"$SOURCE/deploy/systemd/$unit"
done

if [ -n "$tunnel" ]; then
    step "The tunnel for $tunnel"
    if getent passwd cloudflared >/dev/null; then
        say "   cloudflared is here"
    else
        run useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin cloudflared
    fi
    run install -d -m 0755 /etc/cloudflared
    put "$UNITS/cloudflared.service" 0644 root:root <"$SOURCE/deploy/cloudflared/cloudflared.service"
    credentials=/etc/cloudflared/cli-bridge.json
    tunnel_id=TUNNEL_ID
    if [ -e "$credentials" ]; then
        tunnel_id=$("$python" -c 'import json, sys; print(json.load(open(sys.argv[1]))["TunnelID"])' "$credentials")
        run chown root:cloudflared "$credentials"
        run chmod 0640 "$credentials"
    fi
    if [ -e /etc/cloudflared/config.yml ] && ! grep -q TUNNEL_ID /etc/cloudflared/config.yml; then
        say "   /etc/cloudflared/config.yml is here, and stays as it is"
    else
        sed -e "s/bridge\.example\.com/$tunnel/" -e "s/TUNNEL_ID/$tunnel_id/" "$SOURCE/deploy/cloudflared/config.yml" |
            put /etc/cloudflared/config.yml 0644 root:root
    fi
    [ "$tunnel_id" != TUNNEL_ID ] || say "   still to do: the steps in deploy/cloudflared/README.md, then this script once more"
fi

# --- start ---------------------------------------------------------------------------------------------

if systemd_runs && [ -n "$start" ]; then
    step "Starting"
    run systemctl daemon-reload
    run systemctl enable --quiet cli-bridge.service
    run systemctl restart cli-bridge.service
    run systemctl enable --quiet --now cli-bridge-backup.timer
    if [ -n "$tunnel" ] && [ "${tunnel_id:-TUNNEL_ID}" != TUNNEL_ID ] && command -v cloudflared >/dev/null; then
        run systemctl enable --quiet cloudflared.service
        run systemctl restart cloudflared.service
    fi
    if [ -z "$dry" ]; then
        sleep 3
        systemctl is-active --quiet cli-bridge.service || die "the service does not start: journalctl -u cli-bridge -n 30"
        say "   it runs"
    fi
fi

step "Done. What is left for you"
say "   Check:                      sudo cli-bridge doctor"
say "   Without a browser, API keys: sudo cli-bridge credentials add NAME --provider claude   (or codex; it asks for it)"
say "   and a first key:            sudo cli-bridge keys create NAME --max-cost-per-day 2"
say "   The admin key is in $SETTINGS. More: $PROGRAM/docs/install.md, operations.md"
if systemd_runs && [ -n "$start" ]; then
    say "   In a browser, this link leads through an API key, the first key and the first answer. It logs the admin in,"
    say "   once, within ten minutes. Another one: sudo cli-bridge link"
    [ -n "$tunnel" ] || say "   Where the browser is on another machine, first there: ssh -L 3456:127.0.0.1:3456 THIS-HOST"
    say
    run "$COMMAND" link ${tunnel:+--url "https://$tunnel"}
fi
