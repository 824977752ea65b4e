//! The way out: flows of sandboxes carried by the host's own sockets.
//!
//! Sans-IO: no system call is made here. What the host does is behind [`proxy::Sockets`], which the
//! daemon implements with real sockets and the tests with made-up ones.

pub mod proxy;
