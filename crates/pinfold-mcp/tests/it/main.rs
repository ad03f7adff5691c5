//! The transport over HTTP with a host of our own, judged by the official conformance runner.

mod conformance;
mod fixture;
mod hostile;
mod serve;
