//! The only code that writes to an API server: server-side apply, status, events, lease.
