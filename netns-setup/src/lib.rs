//! Namespaces, TAP and veth devices, addresses and routes: done and undone.
