//! The VXLAN tunnel endpoint (sans-IO).
