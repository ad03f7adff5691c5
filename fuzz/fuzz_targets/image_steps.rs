//! Files of build steps.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(steps) = pinfold_image::steps::Steps::parse(text) {
        assert!(steps.steps.len() <= pinfold_image::steps::MAX_STEPS);
        assert_eq!(steps.digest(), steps.digest());
    }
});
