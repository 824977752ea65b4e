//! Whole networks in virtual time. Every frame is checked on its way (see `weft_sim::check`); a
//! failure prints the seed that repeats it.

mod bridge;
mod churn;
mod cluster;
mod gateway;
mod model;
mod router;
mod scale;
