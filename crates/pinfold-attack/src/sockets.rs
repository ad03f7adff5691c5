//! Moves through sockets of every family.

use std::{
    net::{SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use crate::{
    Attempt,
    Category::Sockets,
    Stop, Tried, Wall,
    raw::{check, io},
};

fn socket(family: i32, kind: i32, protocol: i32) -> Tried {
    // SAFETY: numbers only.
    let fd = check(unsafe { libc::socket(family, kind, protocol) })?;
    Ok(format!("socket of family {family} is descriptor {fd}"))
}

fn packet() -> Tried {
    socket(libc::AF_PACKET, libc::SOCK_RAW, 0x0300)
}
fn raw4() -> Tried {
    socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_TCP)
}
fn raw6() -> Tried {
    socket(libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6)
}
fn icmp_raw() -> Tried {
    socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP)
}
fn vsock() -> Tried {
    socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0)
}
fn alg() -> Tried {
    socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0)
}
fn netfilter() -> Tried {
    socket(libc::AF_NETLINK, libc::SOCK_RAW, 12)
}
fn audit() -> Tried {
    socket(libc::AF_NETLINK, libc::SOCK_RAW, 9)
}
fn uevent() -> Tried {
    socket(libc::AF_NETLINK, libc::SOCK_RAW, 15)
}
fn connector() -> Tried {
    socket(libc::AF_NETLINK, libc::SOCK_DGRAM, 11)
}
fn generic_netlink() -> Tried {
    socket(libc::AF_NETLINK, libc::SOCK_RAW, 16)
}
fn xfrm() -> Tried {
    socket(libc::AF_NETLINK, libc::SOCK_RAW, 6)
}
fn bluetooth() -> Tried {
    socket(libc::AF_BLUETOOTH, libc::SOCK_RAW, 1)
}
fn can() -> Tried {
    socket(libc::AF_CAN, libc::SOCK_RAW, 1)
}
fn tipc() -> Tried {
    socket(libc::AF_TIPC, libc::SOCK_SEQPACKET, 0)
}
fn rds() -> Tried {
    socket(libc::AF_RDS, libc::SOCK_SEQPACKET, 0)
}
fn key() -> Tried {
    socket(libc::AF_KEY, libc::SOCK_RAW, 2)
}
fn xdp() -> Tried {
    socket(libc::AF_XDP, libc::SOCK_RAW, 0)
}
fn smc() -> Tried {
    socket(43, libc::SOCK_STREAM, 0)
}
fn kcm() -> Tried {
    socket(41, libc::SOCK_DGRAM, 0)
}
fn sctp() -> Tried {
    socket(libc::AF_INET, libc::SOCK_SEQPACKET, 132)
}

fn connect_host_loopback() -> Tried {
    // Port 22 or the pinfold server's would answer on the host's loopback; here nobody listens.
    for port in [22_u16, 2375, 5432, 6379, 7070, 8088] {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok() {
            return Ok(format!("connected to the host's loopback port {port}"));
        }
    }
    // More than the loopback in the list of interfaces is the host's network.
    let interfaces = std::fs::read_to_string("/proc/self/net/dev").map_err(io)?;
    let others: Vec<&str> = interfaces
        .lines()
        .skip(2)
        .filter_map(|line| line.split(':').next().map(str::trim))
        .filter(|name| *name != "lo")
        .collect();
    if others.is_empty() {
        Err(Stop::Nothing("none visible"))
    } else {
        Ok(format!("interfaces {}", others.join(" ")))
    }
}

fn connect(address: [u8; 4], port: u16) -> Tried {
    TcpStream::connect_timeout(&SocketAddr::from((address, port)), Duration::from_secs(2))
        .map(|_| format!("connected to {address:?}:{port}"))
        .map_err(io)
}

fn metadata() -> Tried {
    connect([169, 254, 169, 254], 80)
}
fn outside() -> Tried {
    connect([192, 0, 2, 1], 443)
}

fn udp_out() -> Tried {
    let socket = UdpSocket::bind("0.0.0.0:0").map_err(io)?;
    socket.send_to(b"x", "192.0.2.53:53").map_err(io)?;
    Ok("sent a datagram out".into())
}

fn resolver() -> Tried {
    let socket = UdpSocket::bind("0.0.0.0:0").map_err(io)?;
    socket.set_read_timeout(Some(Duration::from_secs(1))).map_err(io)?;
    // A query for example.com, type A (RFC 1035 §4.1).
    let query =
        b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03com\x00\x00\x01\x00\x01";
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = text.lines().filter_map(|line| line.strip_prefix("nameserver "));
    let mut last = Stop::Nothing("no resolver");
    for server in servers.chain(["127.0.0.53", "127.0.0.1"]) {
        if let Err(error) = socket.send_to(query, (server.trim(), 53)) {
            last = io(error);
            continue;
        }
        let mut answer = [0_u8; 512];
        match socket.recv(&mut answer) {
            Ok(count) if count > 12 && answer[3].trailing_zeros() >= 4 => {
                return Ok(format!("{server} answered a name"));
            }
            Ok(_) => last = Stop::Nothing("refused"),
            Err(error) => last = io(error),
        }
    }
    Err(last)
}

fn abstract_sockets() -> Tried {
    let text = std::fs::read_to_string("/proc/self/net/unix").map_err(io)?;
    let names: Vec<&str> = text
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().nth(7))
        .filter(|name| {
            name.starts_with("@/")
                || name.contains("pinfold")
                || name.contains("dbus")
                || name.contains("guest.sock")
        })
        .collect();
    if names.is_empty() { Err(Stop::Nothing("none visible")) } else { Ok(names.join(" ")) }
}

fn host_sockets() -> Tried {
    for path in [
        "/run/docker.sock",
        "/var/run/docker.sock",
        "/run/containerd/containerd.sock",
        "/run/dbus/system_bus_socket",
        "/run/systemd/private",
        "/var/lib/pinfold/server.sock",
        "/run/podman/podman.sock",
    ] {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Ok(format!("connected to {path}"));
        }
    }
    Err(Stop::Nothing("none visible"))
}

fn sysv_shm() -> Tried {
    let text = std::fs::read_to_string("/proc/sysvipc/shm").map_err(io)?;
    let count = text.lines().count().saturating_sub(1);
    if count == 0 {
        Err(Stop::Nothing("none visible"))
    } else {
        Ok(format!("{count} segments of others"))
    }
}

const FAMILY: &[&str] = &["EAFNOSUPPORT", "EPERM", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT", "EACCES"];
const REFUSED: &[&str] =
    &["ENETUNREACH", "EHOSTUNREACH", "ECONNREFUSED", "EPERM", "EACCES", "EADDRNOTAVAIL"];

pub(crate) const ATTEMPTS: &[Attempt] = &[
    Attempt {
        id: "sock-packet",
        category: Sockets,
        wall: Wall::Seccomp,
        what: "read and forge frames",
        source: "packet(7); CVE-2017-7308, CVE-2020-14386",
        held: FAMILY,
        body: packet,
    },
    Attempt {
        id: "sock-raw4",
        category: Sockets,
        wall: Wall::Seccomp,
        what: "forge IPv4",
        source: "raw(7)",
        held: FAMILY,
        body: raw4,
    },
    Attempt {
        id: "sock-raw6",
        category: Sockets,
        wall: Wall::Seccomp,
        what: "forge ICMPv6, as a rogue router",
        source: "CVE-2020-13401",
        held: FAMILY,
        body: raw6,
    },
    Attempt {
        id: "sock-raw-icmp",
        category: Sockets,
        wall: Wall::Seccomp,
        what: "forge ICMP",
        source: "raw(7)",
        held: FAMILY,
        body: icmp_raw,
    },
    Attempt {
        id: "sock-vsock",
        category: Sockets,
        wall: Wall::Seccomp,
        what: "reach the hypervisor's channel",
        source: "vsock(7); CVE-2021-26708",
        held: FAMILY,
        body: vsock,
    },
    Attempt {
        id: "sock-alg",
        category: Sockets,
        wall: Wall::Seccomp,
        what: "reach the kernel's crypto",
        source: "AF_ALG holes, CVE-2019-8912",
        held: FAMILY,
        body: alg,
    },
    Attempt {
        id: "sock-netfilter",
        category: Sockets,
        wall: Wall::Seccomp,
        what: "talk to nf_tables",
        source: "CVE-2022-34918, CVE-2024-1086",
        held: FAMILY,
        body: netfilter,
    },
    Attempt {
        id: "sock-audit",
        category: Sockets,
        wall: Wall::Seccomp,
        what: "talk to the audit system",
        source: "netlink(7)",
        held: FAMILY,
        body: audit,
    },
    Attempt {
        id: "sock-uevent",
        category: Sockets,
        wall: Wall::Seccomp,
        what: "listen to device events",
        source: "netlink(7)",
        held: FAMILY,
        body: uevent,
    },
    Attempt {
        id: "sock-connector",
        category: Sockets,
        wall: Wall::Seccomp,
        what: "watch processes by the connector",
        source: "netlink(7)",
        held: FAMILY,
        body: connector,
    },
    Attempt {
        id: "sock-genetlink",
        category: Sockets,
        wall: Wall::Seccomp,
        what: "reach every generic netlink family",
        source: "CVE-2022-3635 and kin",
        held: FAMILY,
        body: generic_netlink,
    },
    Attempt {
        id: "sock-xfrm",
        category: Sockets,
        wall: Wall::Seccomp,
        what: "reach IPsec",
        source: "CVE-2017-7184",
        held: FAMILY,
        body: xfrm,
    },
    Attempt {
        id: "sock-bluetooth",
        category: Sockets,
        wall: Wall::Seccomp,
        what: "reach Bluetooth",
        source: "CVE-2021-3573",
        held: FAMILY,
        body: bluetooth,
    },
    Attempt {
        id: "sock-can",
        category: Sockets,
        wall: Wall::Seccomp,
        what: "reach CAN",
        source: "CVE-2021-3609",
        held: FAMILY,
        body: can,
    },
    Attempt {
        id: "sock-tipc",
        category: Sockets,
        wall: Wall::Seccomp,
        what: "reach TIPC",
        source: "CVE-2021-43267",
        held: FAMILY,
        body: tipc,
    },
    Attempt {
        id: "sock-rds",
        category: Sockets,
        wall: Wall::Seccomp,
        what: "reach RDS",
        source: "CVE-2010-3904",
        held: FAMILY,
        body: rds,
    },
    Attempt {
        id: "sock-key",
        category: Sockets,
        wall: Wall::Seccomp,
        what: "reach AF_KEY",
        source: "CVE-2022-1353",
        held: FAMILY,
        body: key,
    },
    Attempt {
        id: "sock-xdp",
        category: Sockets,
        wall: Wall::Seccomp,
        what: "reach AF_XDP",
        source: "AF_XDP documentation",
        held: FAMILY,
        body: xdp,
    },
    Attempt {
        id: "sock-smc",
        category: Sockets,
        wall: Wall::Seccomp,
        what: "reach SMC",
        source: "CVE-2021-46925",
        held: FAMILY,
        body: smc,
    },
    Attempt {
        id: "sock-kcm",
        category: Sockets,
        wall: Wall::Seccomp,
        what: "reach KCM",
        source: "KCM documentation",
        held: FAMILY,
        body: kcm,
    },
    Attempt {
        id: "sock-sctp",
        category: Sockets,
        wall: Wall::Seccomp,
        what: "reach SCTP",
        source: "CVE-2021-23133",
        held: FAMILY,
        body: sctp,
    },
    Attempt {
        id: "net-host-loopback",
        category: Sockets,
        wall: Wall::NetNamespace,
        what: "find the host's network or a server on its loopback",
        source: "network_namespaces(7)",
        held: &["none visible"],
        body: connect_host_loopback,
    },
    Attempt {
        id: "net-metadata",
        category: Sockets,
        wall: Wall::NetNamespace,
        what: "reach the cloud's metadata",
        source: "AX-03",
        held: REFUSED,
        body: metadata,
    },
    Attempt {
        id: "net-outside",
        category: Sockets,
        wall: Wall::NetNamespace,
        what: "connect to an outside address",
        source: "NET-01",
        held: REFUSED,
        body: outside,
    },
    Attempt {
        id: "net-udp",
        category: Sockets,
        wall: Wall::NetNamespace,
        what: "send a datagram out",
        source: "NET-11",
        held: REFUSED,
        body: udp_out,
    },
    Attempt {
        id: "net-resolver",
        category: Sockets,
        wall: Wall::NetNamespace,
        what: "resolve a name through any resolver",
        source: "NET-11",
        held: &[
            "no resolver",
            "refused",
            "EAGAIN",
            "ENETUNREACH",
            "ECONNREFUSED",
            "EHOSTUNREACH",
            "EPERM",
            "EACCES",
        ],
        body: resolver,
    },
    Attempt {
        id: "net-abstract",
        category: Sockets,
        wall: Wall::NetNamespace,
        what: "find abstract sockets of the host",
        source: "CVE-2020-15257",
        held: &["none visible"],
        body: abstract_sockets,
    },
    Attempt {
        id: "net-host-sockets",
        category: Sockets,
        wall: Wall::Root,
        what: "find sockets of the host's daemons",
        source: "docker.sock escapes",
        held: &["none visible"],
        body: host_sockets,
    },
    Attempt {
        id: "ipc-sysv",
        category: Sockets,
        wall: Wall::IpcNamespace,
        what: "find shared memory of others",
        source: "ipc_namespaces(7)",
        held: &["none visible", "ENOENT", "EACCES"],
        body: sysv_shm,
    },
];
