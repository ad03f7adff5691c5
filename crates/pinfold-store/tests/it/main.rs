//! The store from outside: what it keeps, what it refuses, and what survives.

mod audit;
mod backup;
mod commit;
mod kill;
mod opening;
mod rows;
mod sample;
mod trace;
