//! A real management cluster and worker hosts on one Linux machine.
