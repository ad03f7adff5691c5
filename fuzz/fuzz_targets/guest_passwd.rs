//! A workspace's own `/etc/passwd` and `/etc/group`: any bytes, and any name looked for in them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pinfold_guest::passwd::{Accounts, MAX_GROUPS};

fuzz_target!(|input: (&[u8], &[u8], &str)| {
    let (passwd, group, name) = input;
    let accounts = Accounts::parse(passwd, group);
    for name in [name, "0", "root", "1000:1000"] {
        if let Ok(who) = accounts.find(name) {
            // -1 would mean "as it is", which is root.
            assert!(who.uid != u32::MAX && who.gid != u32::MAX);
            assert!(!who.groups.is_empty() && who.groups.len() <= MAX_GROUPS);
            assert!(!who.groups.contains(&u32::MAX));
            assert!(who.home.starts_with('/') && who.shell.starts_with('/'));
        }
    }
});
