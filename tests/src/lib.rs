//! Simulated-network and end-to-end tests.
