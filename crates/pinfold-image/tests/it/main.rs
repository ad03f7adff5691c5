//! Whole-room tests of the image store, as root or as an ordinary user.

mod host;
mod support;
