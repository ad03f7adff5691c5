//! Which addresses are ordinary public unicast, and what the others are.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::LazyLock,
};

use ipnet::IpNet;

/// What an address is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Class {
    /// Ordinary public unicast.
    Public,
    /// Anything else, with the registry's word for it.
    Special {
        /// For example `loopback`.
        what: &'static str,
    },
}

impl Class {
    /// Whether it may be dialled.
    pub const fn is_public(&self) -> bool {
        matches!(self, Self::Public)
    }
}

/// Every block of `data/special-purpose.txt`.
static BLOCKS: LazyLock<Vec<(IpNet, &'static str)>> = LazyLock::new(|| {
    include_str!("../data/special-purpose.txt")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let mut parts = line.split('|').map(str::trim);
            let block = parts.next().and_then(|text| text.parse().ok());
            (block.expect("a test parses the table"), parts.next().expect("a test reads it"))
        })
        .collect()
});

/// Everything that is not public unicast, `IPv6` that carries an `IPv4` address included.
///
/// `IPv6` outside `2000::/3` is not assigned to anybody (RFC 4291 §2.4) and is refused whole.
pub fn classify(address: IpAddr) -> Class {
    let special = |what| Class::Special { what };
    if let Some((_, what)) = BLOCKS
        .iter()
        .filter(|(block, _)| block.contains(&address))
        .max_by_key(|(block, _)| block.prefix_len())
    {
        return special(what);
    }
    match address {
        IpAddr::V6(v6) if v6.segments()[0] & 0xe000 != 0x2000 => special("not assigned"),
        IpAddr::V6(v6) if is_isatap(v6) => special("ISATAP"),
        IpAddr::V4(_) | IpAddr::V6(_) => Class::Public,
    }
}

/// Interface identifier `[0|2]00:5efe:a.b.c.d` (RFC 5214 §6.1): an IPv4 tunnel in any prefix.
fn is_isatap(address: Ipv6Addr) -> bool {
    let parts = address.segments();
    matches!(parts[4], 0x0000 | 0x0200 | 0x0100 | 0x0300) && parts[5] == 0x5efe
}

/// The IPv4 address that an IPv6 address carries, for messages and tests: mapped, compatible,
/// translated, NAT64, 6to4, Teredo (the client, obfuscated by complement, RFC 4380 §4), ISATAP.
pub fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let parts = address.segments();
    let join = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match parts {
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 || low > 1 => Some(join(high, low)),
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 1, _, _, _, high, low]
        | [0x2002, high, low, ..] => Some(join(high, low)),
        [0x2001, 0, .., high, low] => Some(join(!high, !low)),
        [.., high, low] if is_isatap(address) => Some(join(high, low)),
        _ => None,
    }
}

/// The addresses of this machine itself, public ones included: dialling them comes back here.
pub fn own() -> BTreeSet<IpAddr> {
    let v4 = fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let v6 = fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    own_from(&v4, &v6)
}

fn own_from(fib_trie: &str, if_inet6: &str) -> BTreeSet<IpAddr> {
    let mut found = BTreeSet::new();
    let mut last = None;
    for line in fib_trie.lines() {
        let line = line.trim();
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if line.starts_with("/32 host LOCAL")
            && let Some(address) = last
        {
            found.insert(IpAddr::V4(address));
        }
    }
    for line in if_inet6.lines() {
        let digits = line.split_ascii_whitespace().next().unwrap_or_default();
        if let Ok(value) = u128::from_str_radix(digits, 16) {
            found.insert(IpAddr::V6(Ipv6Addr::from(value)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_table_is_well_formed() {
        for line in include_str!("../data/special-purpose.txt").lines() {
            if !line.is_empty() && !line.starts_with('#') {
                let parts: Vec<&str> = line.split('|').map(str::trim).collect();
                assert_eq!(parts.len(), 3, "{line}");
                let block: IpNet = parts[0].parse().expect(line);
                assert_eq!(block, block.trunc(), "{line} has bits below its prefix");
                assert!(!parts[1].is_empty() && !parts[2].is_empty(), "{line}");
            }
        }
        assert!(BLOCKS.len() >= 39);
    }

    #[test]
    fn edges_of_blocks() {
        for (address, public) in [
            ("9.255.255.255", true),
            ("10.0.0.0", false),
            ("10.255.255.255", false),
            ("11.0.0.0", true),
            ("100.63.255.255", true),
            ("100.64.0.0", false),
            ("100.127.255.255", false),
            ("100.128.0.0", true),
            ("126.255.255.255", true),
            ("127.0.0.1", false),
            ("128.0.0.0", true),
            ("169.254.169.254", false),
            ("168.63.129.16", false),
            ("168.63.129.17", true),
            ("172.15.255.255", true),
            ("172.31.255.255", false),
            ("172.32.0.0", true),
            ("192.0.0.192", false),
            ("198.17.255.255", true),
            ("198.19.255.255", false),
            ("223.255.255.255", true),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("0.0.0.1", false),
            ("100.100.100.200", false),
            ("1.1.1.1", true),
            ("2606:4700::1111", true),
            ("::", false),
            ("::1", false),
            ("::2", false),
            ("fd00:ec2::254", false),
            ("fe80::1", false),
            ("fec0::1", false),
            ("ff02::1", false),
            ("2001:4860:4860::8888", true),
            ("2001:1ff:ffff::", false),
            ("2001:200::", true),
            ("3fff:fff::", false),
            ("4000::1", false),
            ("1::1", false),
        ] {
            let parsed: IpAddr = address.parse().expect(address);
            assert_eq!(classify(parsed).is_public(), public, "{address}");
        }
    }

    #[test]
    fn every_embedding_is_seen() {
        for (address, inside) in [
            ("::ffff:127.0.0.1", "127.0.0.1"),
            ("::127.0.0.1", "127.0.0.1"),
            ("::ffff:0:169.254.169.254", "169.254.169.254"),
            ("64:ff9b::a9fe:a9fe", "169.254.169.254"),
            ("64:ff9b:1::10.0.0.1", "10.0.0.1"),
            ("2002:7f00:1::", "127.0.0.1"),
            ("2001:0:1234::80ff:fffe", "127.0.0.1"),
            ("2606:4700::5efe:127.0.0.1", "127.0.0.1"),
            ("2606:4700::200:5efe:10.0.0.1", "10.0.0.1"),
        ] {
            let parsed: Ipv6Addr = address.parse().expect(address);
            assert_eq!(embedded_v4(parsed), inside.parse().ok(), "{address}");
            assert!(!classify(parsed.into()).is_public(), "{address}");
        }
    }

    proptest! {
        /// However an IPv4 address is wrapped, and whatever address it is, the wrapping is refused.
        #[test]
        fn no_wrapping_passes(a: u16, b: u16, prefix: u16, tail: [u16; 4]) {
            let v4 = Ipv4Addr::from((u32::from(a) << 16) | u32::from(b));
            let wrapped = [
                v4.to_ipv6_mapped(), v4.to_ipv6_compatible(),
                Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, a, b),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, a, b),
                Ipv6Addr::new(0x64, 0xff9b, 1, tail[0], tail[1], tail[2], a, b),
                Ipv6Addr::new(0x2002, a, b, tail[0], tail[1], tail[2], tail[3], 1),
                Ipv6Addr::new(0x2001, 0, tail[0], tail[1], tail[2], tail[3], !a, !b),
                Ipv6Addr::new(0x2606, prefix, 0, 0, 0x200, 0x5efe, a, b),
            ];
            for address in wrapped {
                prop_assert!(!classify(address.into()).is_public(), "{}", address);
            }
        }

        /// Public IPv4 means in no block, and the answer does not depend on the table's order.
        #[test]
        fn public_means_in_no_block(v4: u32) {
            let address = IpAddr::V4(Ipv4Addr::from(v4));
            let in_block = BLOCKS.iter().any(|(block, _)| block.contains(&address));
            prop_assert_eq!(classify(address).is_public(), !in_block);
        }
    }

    #[test]
    fn own_addresses_are_read() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 192.0.2.0\n        /24 link UNICAST\n\
             Local:\n     |-- 192.0.2.7\n        /32 host LOCAL\n     |-- 192.0.2.255\n        /32 link BROADCAST\n";
        let v6 = "20010db8000000000000000000000001 02 40 00 80     eth0\n";
        let own = own_from(trie, v6);
        assert_eq!(own.len(), 2);
        assert!(own.contains(&"192.0.2.7".parse().expect("v4")));
        assert!(own.contains(&"2001:db8::1".parse().expect("v6")));
    }
}
