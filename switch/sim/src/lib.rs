//! Virtual-time worlds of switches, hosts and links.
