//! Whatever happens in whatever order, the queue keeps its promises: random lives of runs in memory, by a clock that
//! is set.
#![allow(clippy::unwrap_used, reason = "a test panics where something is wrong")]

mod check;
mod following;
mod op;
mod world;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::op::op;
use crate::world::World;

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_interleaving_keeps_the_promises(ops in vec(op(), 1..150)) {
        let mut world = World::new();
        for op in &ops {
            world.run(op);
            check::all(&world, op);
        }
        world.work_off();
        check::nothing_is_left(&world);
    }
}
