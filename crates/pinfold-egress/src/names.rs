//! Names that can only mean something near, and names that are not names.

/// Endings that never leave a site: RFC 6761 (`localhost`), RFC 6762 (`local`), RFC 8375
/// (`home.arpa`), ICANN's reservation (`internal`), and other names kept for private or test use
/// (RFC 6761, RFC 7686, RFC 9476) plus the usual private inventions.
const NEAR: [&str; 14] = [
    "alt",
    "corp",
    "example",
    "home",
    "home.arpa",
    "internal",
    "intranet",
    "invalid",
    "lan",
    "local",
    "localdomain",
    "localhost",
    "onion",
    "test",
];

/// Cloud metadata by name, from the providers' documentation. Those under `.internal` are
/// covered above.
const METADATA: [&str; 3] =
    ["instance-data.ec2.internal", "metadata.platformequinix.com", "metadata.packet.net"];

/// Why a name may not be asked for; none when it may.
///
/// `name` is a host as the URL parser gave it: lower case, IDN in its ASCII form. One trailing
/// dot is allowed and means the same name.
pub fn refusal(name: &str) -> Option<&'static str> {
    let bare = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    if bare.is_empty() || bare.len() > 253 {
        return Some("a name has 1 to 253 bytes");
    }
    let labels: Vec<&str> = bare.split('.').collect();
    let fine = |label: &&str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if !labels.iter().all(fine) {
        return Some("it is not a name of letters, digits and hyphens");
    }
    if labels.len() == 1 {
        return Some("a name without a dot means something on this network");
    }
    if labels.last().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit())) {
        return Some("it is a broken address, not a name");
    }
    let ends = |ending: &str| {
        bare.strip_suffix(ending).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    if NEAR.iter().any(|near| ends(near)) {
        return Some("names with this ending are local");
    }
    if METADATA.iter().any(|known| ends(known)) {
        return Some("it is a cloud metadata service");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_refused_in_every_spelling() {
        for name in [
            "localhost",
            "localhost.",
            "LOCALHOST",
            "a.localhost",
            "a.b.localhost.",
            "printer",
            "printer.local",
            "metadata.google.internal",
            "router.home.arpa",
            "x.lan",
            "db.corp",
            "",
            ".",
            "..",
            "a..b",
            "-a.com",
            "a-.com",
            "a b.com",
            "a\0.com",
            "1.2.3.999",
            "instance-data.ec2.internal",
            &format!("{}.com", "a".repeat(64)),
            "host.test",
        ] {
            assert!(refusal(name).is_some(), "{name:?}");
        }
        for name in [
            "example.com",
            "example.com.",
            "registry-1.docker.io",
            "xn--bcher-kva.de",
            "notlocalhost.com",
            "local.com",
            "_dmarc.a.org",
            "internal.net",
            "testing.dev",
        ] {
            assert!(refusal(name).is_none(), "{name:?}: {:?}", refusal(name));
        }
    }
}
