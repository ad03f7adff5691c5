//! What host and guest say to each other, as text. What is read says the same when it is written
//! and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pinfold_proto::{
    handshake::{GuestConfig, Hello, Welcome},
    message::{ExecControl, Request},
};
use serde_json::{Value, from_slice, to_value};

fuzz_target!(|bytes: &[u8]| {
    let _ = from_slice::<Hello>(bytes);
    let _ = from_slice::<Welcome>(bytes);
    let _ = from_slice::<GuestConfig>(bytes);
    let _ = from_slice::<ExecControl>(bytes);
    if let Ok(request) = from_slice::<Request>(bytes) {
        let once: Value = to_value(&request).expect("a request can be written");
        let again: Request = serde_json::from_value(once.clone()).expect("and read again");
        assert_eq!(to_value(&again).expect("a request can be written"), once);
    }
});
