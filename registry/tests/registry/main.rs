//! The client against servers that behave and misbehave, each in one way.

#![allow(clippy::unwrap_used, clippy::panic)]

mod auth;
mod behaviours;
mod classes;
mod expiry;
mod faults;
mod images;
mod judge;
#[cfg(feature = "kubernetes")]
mod kubernetes;
mod logins;
mod mirrors;
mod origin;
mod push;
mod ranges;
mod redirects;
mod referrers;
mod renewals;
mod tls;
