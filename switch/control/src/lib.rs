//! Desired state, IPAM, plan, configuration and wire types (pure).
