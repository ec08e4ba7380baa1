//! The table, with windows of the test's own.

#[allow(dead_code)]
#[path = "../../src/fetch/in_flight.rs"]
pub(crate) mod in_flight;
#[path = "window.rs"]
pub(crate) mod window;
