//! Random operations on a world, compared with [`Naive`] after each.

use sim::Random;

use crate::naive::{Naive, Op, Outcome};

/// What is compared with the naive model: the pure model, or a daemon.
pub trait World {
    /// Does it, to the end.
    ///
    /// # Errors
    /// The refusal's code.
    fn step(&mut self, op: &Op) -> Outcome;
    /// All that can be seen, as [`Naive::view`] has it.
    fn view(&mut self) -> Vec<String>;
    /// Ends as it should, and starts again.
    fn restart(&mut self);
    /// Dies somewhere in it, and starts again. `None` when there was no answer.
    fn die_in(&mut self, op: &Op, random: &mut Random) -> Option<Outcome>;
}

/// Operations of one run.
const STEPS: usize = 200;

/// Runs the operations of a seed.
///
/// # Panics
/// At the first difference, with what was done and the command that repeats it.
pub fn compare(seed: u64, world: &mut dyn World, repeat: &str) {
    let (mut random, mut naive, mut done) = (Random::new(seed), Naive::default(), Vec::new());
    let check = |step: usize, done: &[String], what: &str, saw: String, wanted: String| {
        assert!(saw == wanted, "seed {seed}, step {step}: {what}\n  saw    {saw}\n  wanted {wanted}\nafter:\n  {}\nrepeat: {repeat}", done[done.len().saturating_sub(30)..].join("\n  "));
    };
    for step in 0..STEPS {
        let op = naive.next_op(&mut random);
        match random.below(100) {
            0..2 => {
                done.push("restart".into());
                world.restart();
            }
            2..6 => {
                done.push(format!("kill -9 in {op:?}"));
                let mut after = naive.clone();
                let expected = after.step(&op);
                match world.die_in(&op, &mut random) {
                    Some(outcome) => {
                        check(step, &done, "outcome of what was answered", format!("{outcome:?}"), format!("{expected:?}"));
                        naive = after;
                    }
                    // Nobody was told: it may have happened, but not by half.
                    None if world.view() == after.view() => naive = after,
                    None => {}
                }
            }
            _ => {
                done.push(format!("{op:?}"));
                let expected = naive.step(&op);
                check(step, &done, "outcome", format!("{:?}", world.step(&op)), format!("{expected:?}"));
            }
        }
        check(step, &done, "state", world.view().join("\n         "), naive.view().join("\n         "));
    }
}
