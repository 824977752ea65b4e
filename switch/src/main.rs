//! The one binary.

mod dataloop;
mod io;
mod sys;

fn main() {}
