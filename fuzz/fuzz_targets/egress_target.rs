//! URLs: what passes must read the same the second time.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pinfold_egress::Target;

fuzz_target!(|text: &str| {
    if let Ok(target) = Target::parse(text) {
        let again = Target::parse(target.url().as_str()).expect("what passed passes again");
        assert_eq!(again.authority(), target.authority());
    }
});
