//! What can happen.

use lime_core::ports::Request;
use proptest::prelude::*;
use proptest::sample::Index;

/// One thing that happens; what it happens to is chosen among what there is.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Submit { tenant: usize, project: usize, agent: Option<i64>, priority: i16, key: Option<u8>, in_s: i64 },
    Take { max: usize, lease_s: u64 },
    Start { lease: Index, lease_s: u64 },
    Finish { lease: Index },
    Sweep,
    Heartbeat { lease: Index, lease_s: u64 },
    Append { lease: Index, events: usize },
    Settle { lease: Index, outcome: usize },
    HandBack { lease: Index, pause_s: Option<u64> },
    Request { run: Index, request: Request },
    Say { run: Index },
    Ask { lease: Index, payload: u8 },
    Answer { lease: Index, approval: Index },
    Decide { approval: Index, approve: bool },
    Limit { tenant: usize, most: Option<i32> },
    Pass { s: i64 },
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    let which = any::<Index>;
    let request = prop_oneof![
        Just(Request::Cancel),
        Just(Request::Pause),
        Just(Request::Resume),
        Just(Request::Requeue),
    ];
    let agent = prop::option::weighted(0.3, 1..3_i64);
    let key = prop::option::weighted(0.3, 0..2_u8);
    let in_s = prop_oneof![4 => Just(0), 1 => -10..30_i64];
    prop_oneof![
        8 => (0..2_usize, 0..2_usize, agent, -1..2_i16, key, in_s).prop_map(
            |(tenant, project, agent, priority, key, in_s)| Op::Submit { tenant, project, agent, priority, key, in_s }
        ),
        8 => (0..5_usize, 1..20_u64).prop_map(|(max, lease_s)| Op::Take { max, lease_s }),
        10 => (which(), 1..20_u64).prop_map(|(lease, lease_s)| Op::Start { lease, lease_s }),
        1 => which().prop_map(|lease| Op::Finish { lease }),
        1 => Just(Op::Sweep),
        3 => (which(), 1..20_u64).prop_map(|(lease, lease_s)| Op::Heartbeat { lease, lease_s }),
        3 => (which(), 0..4_usize).prop_map(|(lease, events)| Op::Append { lease, events }),
        4 => (which(), 0..4_usize).prop_map(|(lease, outcome)| Op::Settle { lease, outcome }),
        4 => (which(), prop::option::of(0..30_u64)).prop_map(|(lease, pause_s)| Op::HandBack { lease, pause_s }),
        6 => (which(), request).prop_map(|(run, request)| Op::Request { run, request }),
        1 => which().prop_map(|run| Op::Say { run }),
        3 => (which(), 0..3_u8).prop_map(|(lease, payload)| Op::Ask { lease, payload }),
        3 => (which(), which()).prop_map(|(lease, approval)| Op::Answer { lease, approval }),
        2 => (which(), any::<bool>()).prop_map(|(approval, approve)| Op::Decide { approval, approve }),
        1 => (0..2_usize, prop::option::of(1..4)).prop_map(|(tenant, most)| Op::Limit { tenant, most }),
        4 => (1..15_i64).prop_map(|s| Op::Pass { s }),
    ]
}
