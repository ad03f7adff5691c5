//! Whole-room tests of the image store, as root or as an ordinary user.

mod fake;
mod host;
mod images;
mod pull;
mod support;
