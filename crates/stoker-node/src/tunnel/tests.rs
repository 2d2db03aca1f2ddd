//! Both ends, with real certificates, on loopback.

mod admission;
mod ground;
mod servers;
mod streams;
mod told;
