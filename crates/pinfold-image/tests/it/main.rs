//! Whole-room tests of the image store, as root or as an ordinary user.

mod debian;
mod fake;
mod host;
mod images;
mod pull;
mod registry;
mod support;
