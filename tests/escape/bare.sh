# Runs one attempt without any wall: as the host's root, in namespaces that exist only to keep the
# decoys and the damage away from the machine that runs the tests. $1 is the attacker, $2 the
# attempt. Everything mounted here is gone with the mount namespace.
set -eu
export SSH_AUTH_SOCK=/decoy
ulimit -n 4096
ulimit -q unlimited 2>/dev/null || true
ulimit -c unlimited 2>/dev/null || true
quiet() { "$@" >/dev/null 2>&1 || true; }

mount -t tmpfs -o size=64m decoy /media
cp "$1" /media/attack
printf decoy >/media/pinfold-decoy
for dir in /tmp /var/tmp; do
    mount -t tmpfs -o size=2g,nr_inodes=200k,mode=1777 decoy "$dir"
done
for dir in /mnt /var/lib /var/log /boot /run /root; do
    mount -t tmpfs decoy "$dir"
done
mkdir -p /mnt/host /boot/grub /var/lib/pinfold /var/lib/dbus /root/.aws /root/.ssh
mount --bind / /mnt/host
printf '0123456789abcdef0123456789abcdef\n' >/var/lib/dbus/machine-id
printf decoy >/root/.aws/credentials
printf decoy >/root/.ssh/id_ed25519
printf decoy >/var/log/syslog
printf 'root:$6$decoy$decoy:1:0:99999:7:::\n' >/media/shadow
mount --bind /media/shadow /etc/shadow
printf 'nameserver 192.0.2.53\n' >/media/resolv.conf
quiet mount --bind /media/resolv.conf "$(readlink -f /etc/resolv.conf)"
quiet mount -t debugfs decoy /sys/kernel/debug

# A network of this one attempt: every address lies on its own loopback.
ip link set lo up
for address in 192.0.2.1 192.0.2.53 169.254.169.254; do
    ip address add "$address/32" dev lo
done
quiet ip link add decoy0 type veth peer name decoy1

exec 7< <(exec python3 - <<'PYTHON'
import ctypes, os, pty, socket, sys, threading, time
def listen(port):
    server = socket.socket()
    server.bind(("0.0.0.0", port))
    server.listen()
    return server
kept = [listen(port) for port in (80, 443)]
names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
names.bind(("0.0.0.0", 53))
def answer():
    while True:
        query, who = names.recvfrom(512)
        names.sendto(query[:2] + b"\x81\x80" + query[4:], who)
threading.Thread(target=answer, daemon=True).start()
for path in ("\0/containerd-shim/decoy", "/run/docker.sock"):
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()
    kept.append(server)
ctypes.CDLL(None).shmget(0x5eed, 4096, 0o1600)
kept += [pty.openpty() for _ in range(10)]
print("ready", flush=True)
time.sleep(60)
PYTHON
)
read -r ready <&7
[ "$ready" = ready ]
exec 7<&-
quiet /media/attack sys-add-key

case "$2" in
    fd-*) exec 9</ </media/pinfold-decoy ;;
    kill-unseen) mount -t tmpfs decoy /proc ;;
    cgroup-outside)
        group=/sys/fs/cgroup/pids/pinfold-decoy-$$
        [ -d /sys/fs/cgroup/pids ] || group=/sys/fs/cgroup/pinfold-decoy-$$
        mkdir "$group"
        (echo 0 >"$group/cgroup.procs"; exec unshare -C /media/attack "$2")
        rmdir "$group"
        exit
        ;;
esac
exec timeout 20 /media/attack "$2"
