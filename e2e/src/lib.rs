//! Tests from the user side, on the lab.
