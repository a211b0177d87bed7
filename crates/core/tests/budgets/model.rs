//! Random lives of attempts over several budgets, beside a model that only adds and subtracts.

use lime_core::governance::{
    Amount, Budget, BudgetAccount, BudgetCounter, BudgetEntry, BudgetPeriod, BudgetWindow, Posting,
    Reservation, ReservationSignal as Signal, ReservationStatus, admit,
};
use lime_core::{Entity, Id, Stored};
use proptest::prelude::*;

use super::{budget, stored, window};

const ATTEMPTS: usize = 4;

#[derive(Debug, Clone)]
enum Op {
    Reserve(usize, Vec<i64>),
    Meter(usize, Vec<i64>),
    Settle(usize, Vec<i64>),
    Release(usize),
}

#[derive(Debug, Clone, Copy, Default)]
struct Plain {
    held: i64,
    used: i64,
    over: i64,
    closed: bool,
}

impl Plain {
    fn uses(&mut self, total: i64) {
        let more = (total - self.used).max(0);
        self.over += (more - self.held).max(0);
        self.held = (self.held - more).max(0);
        self.used += more;
    }
}

fn ops(budgets: usize) -> impl Strategy<Value = Vec<Op>> {
    let amounts = move || prop::collection::vec(0..30_i64, budgets);
    let op = prop_oneof![
        4 => (0..ATTEMPTS, amounts()).prop_map(|(attempt, amounts)| Op::Reserve(attempt, amounts)),
        3 => (0..ATTEMPTS, amounts()).prop_map(|(attempt, amounts)| Op::Meter(attempt, amounts)),
        1 => (0..ATTEMPTS, amounts()).prop_map(|(attempt, amounts)| Op::Settle(attempt, amounts)),
        1 => (0..ATTEMPTS).prop_map(Op::Release),
    ];
    prop::collection::vec(op, 1..40)
}

fn some_budget() -> impl Strategy<Value = Budget> {
    (0..100_i64, prop::option::of(0..100_i64), prop::bool::weighted(0.8)).prop_map(|(limit, soft, hard)| {
        Budget {
            soft_limit: soft.map(|soft| Amount::new(soft.min(limit))),
            enforce_hard_stop: hard,
            ..budget(limit)
        }
    })
}

fn world() -> impl Strategy<Value = (Vec<Budget>, Vec<Op>)> {
    prop::collection::vec(some_budget(), 1..4).prop_flat_map(|budgets| {
        let ops = ops(budgets.len());
        (Just(budgets), ops)
    })
}

struct World {
    budgets: Vec<Stored<Budget>>,
    window: BudgetWindow,
    counters: Vec<BudgetCounter>,
    warnings: Vec<usize>,
    reservations: Vec<Vec<Reservation>>,
    ledger: Vec<(usize, BudgetEntry)>,
}

impl World {
    fn new(budgets: Vec<Budget>) -> Self {
        let many = budgets.len();
        Self {
            budgets: (1..).zip(budgets).map(|(id, budget)| stored(id, budget)).collect(),
            window: window(BudgetPeriod::Weekly),
            counters: vec![BudgetCounter::default(); many],
            warnings: vec![0; many],
            reservations: vec![vec![Reservation::default(); many]; ATTEMPTS],
            ledger: Vec::new(),
        }
    }

    fn account(&self, at: usize) -> BudgetAccount<'_> {
        BudgetAccount { budget: &self.budgets[at], window: &self.window, counter: self.counters[at] }
    }

    /// Signals an attempt's reservations, and writes what comes of it; `false` if they are closed.
    fn signal(&mut self, attempt: usize, signal: impl Fn(usize) -> Signal) -> bool {
        for at in 0..self.budgets.len() {
            let Ok((after, postings)) = self.reservations[attempt][at].after(signal(at)) else {
                return false;
            };
            self.reservations[attempt][at] = after;
            for posting in postings {
                let posted = self.account(at).post(posting);
                self.counters[at] = posted.counter;
                self.warnings[at] += usize::from(posted.warning.is_some());
                let id = Id::new(i64::try_from(attempt).unwrap() + 1);
                let entry = BudgetEntry::new(&self.budgets[at], &self.window, Id::new(17), id, posting);
                entry.validate().unwrap();
                self.ledger.push((attempt, entry));
            }
        }
        true
    }

    /// The postings of a budget, of one attempt or all.
    fn postings(&self, at: usize, attempt: Option<usize>) -> impl Iterator<Item = Posting> {
        let budget = self.budgets[at].id;
        let meant = move |(by, entry): &&(usize, BudgetEntry)| {
            entry.budget_id == budget && attempt.is_none_or(|only| only == *by)
        };
        self.ledger.iter().filter(meant).map(|(_, entry)| entry.posting)
    }
}

fn check(world: &World, plain: &[Vec<Plain>], asked_beyond: &[bool]) -> Result<(), TestCaseError> {
    for (at, counter) in world.counters.iter().enumerate() {
        let sum = |of: fn(&Plain) -> i64| plain.iter().map(|attempt| of(&attempt[at])).sum::<i64>();
        let (held, spent, over) = (sum(|plain| plain.held), sum(|plain| plain.used), sum(|plain| plain.over));
        prop_assert_eq!((counter.held.get(), counter.spent.get()), (held, spent));
        let ledger = |of: fn(Posting) -> i64| world.postings(at, None).map(of).sum::<i64>();
        prop_assert_eq!((ledger(|posting| posting.held), ledger(|posting| posting.spent)), (held, spent));

        let budget = &world.budgets[at].value;
        if budget.enforce_hard_stop {
            prop_assert!(held + spent <= budget.limit.get() + over, "overspent by reservations");
        }
        prop_assert_eq!(world.warnings[at], usize::from(counter.warned));
        prop_assert_eq!(counter.warned, asked_beyond[at]);
        for (attempt, plain) in plain.iter().enumerate() {
            let reservation = world.reservations[attempt][at];
            prop_assert_eq!(Reservation::replay(world.postings(at, Some(attempt))), reservation);
            let told = (reservation.held().get(), reservation.used().get(), reservation.over().get());
            prop_assert_eq!(told, (plain[at].held, plain[at].used, plain[at].over));
            prop_assert_eq!(reservation.status() == ReservationStatus::Closed, plain[at].closed);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn counters_reservations_and_ledger_agree((budgets, ops) in world()) {
        let many = budgets.len();
        let mut world = World::new(budgets);
        let mut plain = vec![vec![Plain::default(); many]; ATTEMPTS];
        let mut beyond = vec![false; many];
        for op in ops {
            match op {
                Op::Reserve(attempt, asked) => {
                    let fits = |at: usize| {
                        let budget = &world.budgets[at].value;
                        let used: i64 = plain.iter().map(|attempt| attempt[at].held + attempt[at].used).sum();
                        !budget.enforce_hard_stop || used + asked[at].max(1) <= budget.limit.get()
                    };
                    let refuses = (0..many).find(|at| !fits(*at)).map(|at| world.budgets[at].id);
                    let closed = plain[attempt][0].closed;
                    let asks: Vec<_> = (0..many).rev().map(|at| (world.account(at), Amount::new(asked[at]))).collect();
                    let answer = admit(&asks);
                    prop_assert_eq!(answer.as_ref().err().map(|refusal| refusal.budget), refuses);
                    if let (Ok(posted), false) = (answer, closed) {
                        prop_assert!(world.signal(attempt, |at| Signal::Reserve(Amount::new(asked[at]))));
                        let admitted: Vec<_> = posted.iter().rev().map(|posted| posted.counter).collect();
                        prop_assert_eq!(&admitted, &world.counters, "what is admitted is what is written");
                        plain[attempt].iter_mut().zip(&asked).for_each(|(plain, asked)| plain.held += asked);
                    }
                }
                Op::Meter(attempt, totals) => {
                    let went = world.signal(attempt, |at| Signal::Meter(Amount::new(totals[at])));
                    prop_assert_eq!(went, !plain[attempt][0].closed);
                    if went {
                        plain[attempt].iter_mut().zip(&totals).for_each(|(plain, total)| plain.uses(*total));
                    }
                }
                Op::Settle(attempt, totals) => {
                    prop_assert!(world.signal(attempt, |at| Signal::Settle(Amount::new(totals[at]))));
                    for (plain, total) in plain[attempt].iter_mut().zip(&totals).filter(|(plain, _)| !plain.closed) {
                        plain.uses(*total);
                        *plain = Plain { held: 0, closed: true, ..*plain };
                    }
                }
                Op::Release(attempt) => {
                    prop_assert!(world.signal(attempt, |_| Signal::Release));
                    plain[attempt].iter_mut().for_each(|plain| *plain = Plain { held: 0, closed: true, ..*plain });
                }
            }
            for (at, beyond) in beyond.iter_mut().enumerate() {
                let committed = world.postings(at, None).map(|posting| posting.held + posting.spent);
                let most = committed.scan(0, |sum, by| { *sum += by; Some(*sum) }).max();
                let budget = &world.budgets[at].value;
                let above = budget.soft_limit.or((!budget.enforce_hard_stop).then_some(budget.limit));
                *beyond = above.is_some_and(|above| most > Some(above.get()));
            }
            check(&world, &plain, &beyond)?;
        }
    }
}
