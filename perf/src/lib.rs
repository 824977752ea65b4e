//! Measurements beside peers, and instruction counts of the engine.
