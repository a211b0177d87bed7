//! The life of one reservation.

use lime_core::governance::{
    Amount, EntryKind, Posting, Reservation, ReservationClosed, ReservationSignal as Signal,
    ReservationStatus,
};

fn run(signals: &[Signal]) -> (Reservation, Vec<Posting>) {
    let mut all = Vec::new();
    let last = signals.iter().fold(Reservation::default(), |before, signal| {
        let (after, postings) = before.after(*signal).unwrap();
        all.extend(postings);
        after
    });
    (last, all)
}

fn posting(kind: EntryKind, held: i64, spent: i64) -> Posting {
    Posting { kind, held, spent }
}

#[test]
fn a_run_is_reserved_metered_and_settled() {
    let (n, amount) = (Amount::new, Amount::new);
    let signals = [
        Signal::Reserve(n(10)),
        Signal::Meter(n(4)),
        Signal::Meter(n(4)),
        Signal::Reserve(n(5)),
        Signal::Settle(n(7)),
    ];
    let (last, postings) = run(&signals);
    assert_eq!(
        postings,
        [
            posting(EntryKind::Reserve, 10, 0),
            posting(EntryKind::Settle, -4, 4),
            posting(EntryKind::Reserve, 5, 0),
            posting(EntryKind::Settle, -3, 3),
            posting(EntryKind::Release, -8, 0),
        ]
    );
    assert_eq!(
        (last.status(), last.held(), last.used(), last.over()),
        (ReservationStatus::Closed, n(0), n(7), amount(0))
    );
}

#[test]
fn to_settle_three_times_counts_once() {
    let n = Amount::new;
    let (last, postings) = run(&[
        Signal::Reserve(n(5)),
        Signal::Settle(n(5)),
        Signal::Settle(n(5)),
        Signal::Settle(n(9)),
        Signal::Release,
    ]);
    assert_eq!(postings.iter().map(|posting| posting.spent).sum::<i64>(), 5);
    assert_eq!(last.used(), n(5));
    assert_eq!(last.after(Signal::Reserve(n(1))), Err(ReservationClosed));
    assert_eq!(last.after(Signal::Meter(n(6))), Err(ReservationClosed));
}

#[test]
fn what_is_used_beyond_what_was_held_is_recorded_in_full() {
    let n = Amount::new;
    let (last, postings) = run(&[Signal::Reserve(n(5)), Signal::Meter(n(8)), Signal::Settle(n(9))]);
    assert_eq!((last.used(), last.over()), (n(9), n(4)));
    assert_eq!(
        postings.iter().map(|posting| (posting.held, posting.spent)).collect::<Vec<_>>(),
        [(5, 0), (-5, 8), (0, 1), (0, 0)]
    );
}

#[test]
fn a_lost_lease_frees_what_is_held_and_keeps_what_was_metered() {
    let n = Amount::new;
    let (last, postings) =
        run(&[Signal::Reserve(n(5)), Signal::Meter(n(2)), Signal::Release, Signal::Settle(n(5))]);
    assert_eq!((last.used(), last.held(), postings.len()), (n(2), n(0), 3));
}
