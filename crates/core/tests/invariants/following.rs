//! However a subscriber reads, it sees the whole log once and in order, and pieces in their place.

use futures_util::{FutureExt, StreamExt};
use lime_core::ports::{EventLog, EventStream, Live, Queue, Request, Settlement};
use lime_core::runs::{AgentEvent, Failure, FailureKind, Outcome, Seq};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::world::{World, get};

#[derive(Debug, Clone)]
enum Step {
    /// Something is appended: a piece of a message where it is true.
    Append(Vec<bool>),
    /// The subscriber reads so many items, as far as there are any.
    Read(usize),
    /// The subscriber breaks off and comes again.
    Return,
    /// The run fails and is requeued.
    Requeue,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => vec(any::<bool>(), 1..6).prop_map(Step::Append),
        // More than is kept for those who are there.
        1 => (1_000..1_300_usize).prop_map(|count| Step::Append((0..count).map(|n| n % 3 == 0).collect())),
        6 => (0..8_usize).prop_map(Step::Read),
        1 => Just(Step::Read(usize::MAX)),
        1 => Just(Step::Return),
        1 => Just(Step::Requeue),
    ]
}

struct Subscriber {
    stream: EventStream,
    seen: Seq,
    /// The number of the last event, or piece, that was seen.
    last: usize,
    ended: bool,
}

impl Subscriber {
    fn read(&mut self, most: usize) {
        for _ in 0..most {
            match self.stream.next().now_or_never() {
                None => return,
                Some(None) => {
                    self.ended = true;
                    return;
                }
                Some(Some(live)) => self.see(live.unwrap()),
            }
        }
    }

    fn see(&mut self, live: Live) {
        let event = match live {
            Live::Recorded(recorded) => {
                assert_eq!(recorded.seq, self.seen + 1, "one was missed or repeated");
                self.seen = recorded.seq;
                recorded.event
            }
            Live::Ephemeral(event) => event,
        };
        if let AgentEvent::Log { text } | AgentEvent::Delta { text } = event {
            let number = text.parse().unwrap();
            assert!(number > self.last, "{number} came after {}", self.last);
            self.last = number;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_subscriber_sees_the_whole_log_in_order(steps in vec(step(), 1..40)) {
        let world = World::new();
        let (scope, storage) = (&world.scopes[0], &world.storage);
        let run = world.a_run(0);
        let run = get(storage.submit(scope, run)).unwrap().id;
        let mut lease = world.claim();
        let follow = |seen: Seq| storage.subscribe(scope, run, seen);
        let mut subscriber = Subscriber { stream: follow(0), seen: 0, last: 0, ended: false };
        let mut number = 0;
        for step in steps {
            match step {
                Step::Append(pieces) => {
                    let events = pieces.into_iter().map(|is_piece| {
                        number += 1;
                        let text = number.to_string();
                        if is_piece { AgentEvent::Delta { text } } else { AgentEvent::Log { text } }
                    });
                    let events: Vec<_> = events.collect();
                    get(storage.append(&lease, events.into())).unwrap();
                }
                Step::Read(most) => subscriber.read(most),
                Step::Return => subscriber.stream = follow(subscriber.seen),
                Step::Requeue => {
                    let failure = Failure::new(FailureKind::Internal, "no");
                    get(storage.settle(&lease, Settlement::new(Outcome::Failed(failure)))).unwrap();
                    get(storage.request(scope, run, Request::Requeue)).unwrap();
                    lease = world.claim();
                }
            }
            prop_assert!(!subscriber.ended, "the run goes on");
        }
        get(storage.settle(&lease, Settlement::new(Outcome::Cancelled))).unwrap();
        subscriber.read(usize::MAX);
        let log = world.log((0, run));
        prop_assert!(subscriber.ended);
        prop_assert_eq!(subscriber.seen, log.last().unwrap().seq);
    }
}
