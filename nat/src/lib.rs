//! Address translation: conntrack and the user-mode uplink (sans-IO).
