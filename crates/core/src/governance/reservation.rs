use super::{Amount, EntryKind, Posting};

/// What one attempt holds and has used of one budget.
///
/// - It is open from the first reserve to the release, and lives and dies with the attempt's lease.
/// - What it used is recorded in full, also beyond what it held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reservation {
    status: ReservationStatus,
    held: Amount,
    used: Amount,
    over: Amount,
}

/// How far a reservation is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ReservationStatus {
    /// The attempt may hold more, and use it.
    #[default]
    Open,
    /// Nothing is held any more.
    Closed,
}

/// What happens to a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReservationSignal {
    /// This much more is held; the budget has admitted it.
    Reserve(Amount),
    /// The attempt has used this much, all in all, and goes on.
    Meter(Amount),
    /// The attempt has ended, and used this much, all in all.
    Settle(Amount),
    /// The attempt has lost its lease: what was metered is spent, the rest is free.
    Release,
}

/// A reservation that is closed can neither hold nor use more: the attempt's lease is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the reservation is closed, so nothing more can be held or used on it; stop the attempt")]
pub struct ReservationClosed;

impl Reservation {
    /// The reservation after a signal, and what that does to the budget's counters.
    ///
    /// - Amounts that were used are totals, as providers report them: the same one or a lower one moves nothing.
    /// - To settle or to release what is closed does nothing, so a settlement that is repeated counts once.
    pub fn after(self, signal: ReservationSignal) -> Result<(Self, Vec<Posting>), ReservationClosed> {
        use ReservationSignal as S;
        match self.status {
            ReservationStatus::Open => Ok(match signal {
                S::Reserve(amount) => self.reserve(amount),
                S::Meter(total) => self.meter(total),
                S::Settle(total) => {
                    let (metered, mut postings) = self.meter(total);
                    let (closed, release) = metered.close();
                    postings.push(release);
                    (closed, postings)
                }
                S::Release => {
                    let (closed, release) = self.close();
                    (closed, vec![release])
                }
            }),
            ReservationStatus::Closed => match signal {
                S::Settle(_) | S::Release => Ok((self, Vec::new())),
                S::Reserve(_) | S::Meter(_) => Err(ReservationClosed),
            },
        }
    }

    /// The reservation that an attempt's entries for one budget tell of, in their order.
    pub fn replay(postings: impl IntoIterator<Item = Posting>) -> Self {
        postings.into_iter().fold(Self::default(), |before, posting| {
            let Posting { kind, held, spent } = posting;
            Self {
                status: match kind {
                    EntryKind::Release => ReservationStatus::Closed,
                    EntryKind::Reserve | EntryKind::Settle => before.status,
                },
                held: before.held.moved(held),
                used: before.used.moved(spent),
                over: match kind {
                    EntryKind::Settle => before.over.plus(Amount::new(spent.saturating_add(held))),
                    EntryKind::Reserve | EntryKind::Release => before.over,
                },
            }
        })
    }

    /// How far it is.
    pub const fn status(&self) -> ReservationStatus {
        self.status
    }

    /// What is held and not used.
    pub const fn held(&self) -> Amount {
        self.held
    }

    /// What was used.
    pub const fn used(&self) -> Amount {
        self.used
    }

    /// The part of it that was not held when it was used; to be reported if it is not 0.
    pub const fn over(&self) -> Amount {
        self.over
    }

    fn reserve(self, amount: Amount) -> (Self, Vec<Posting>) {
        let held = self.held.plus(amount);
        let posting = Posting { kind: EntryKind::Reserve, held: held.minus(self.held).get(), spent: 0 };
        (Self { held, ..self }, (posting.held > 0).then_some(posting).into_iter().collect())
    }

    fn meter(self, total: Amount) -> (Self, Vec<Posting>) {
        let more = total.minus(self.used);
        let freed = more.min(self.held);
        let after = Self {
            held: self.held.minus(freed),
            used: self.used.plus(more),
            over: self.over.plus(more.minus(freed)),
            ..self
        };
        let posting = Posting { kind: EntryKind::Settle, held: -freed.get(), spent: more.get() };
        (after, (more > Amount::ZERO).then_some(posting).into_iter().collect())
    }

    fn close(self) -> (Self, Posting) {
        let posting = Posting { kind: EntryKind::Release, held: -self.held.get(), spent: 0 };
        (Self { status: ReservationStatus::Closed, held: Amount::ZERO, ..self }, posting)
    }
}
